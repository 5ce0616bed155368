//! Arguments -> settings -> the server -> exit code.

use std::process::ExitCode;

use peerdex::config::{self, Command};
use peerdex::{care, io};

/// Wrong usage, as shells and clap have it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command =
        config::load(std::env::args_os(), std::env::vars_os(), |path| std::fs::read_to_string(path));
    match command {
        Ok(Command::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Run(config)) => ended(io::run(&config)),
        Ok(Command::Import(config, import)) => ended(io::import(&config, &import)),
        Ok(Command::Info(folder)) => care::info(&folder),
        Ok(Command::Check(folder)) => care::check(&folder),
        Err(error) => {
            eprintln!("peerdex: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peerdex: {error:#}");
            ExitCode::FAILURE
        }
    }
}
