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
        Ok(Command::Run(config)) => ended(io::run(&config).map(|()| true)),
        Ok(Command::Import(config, import)) => ended(io::import(&config, &import).map(|()| true)),
        Ok(Command::Info(folder)) => ended(care::info(&folder).map(|()| true)),
        Ok(Command::Check(folder)) => ended(care::check(&folder)),
        Ok(Command::Rpc(call)) => ended(io::call(&call).map(|()| true)),
        Err(error) => {
            eprintln!("peerdex: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Whether all is well, or why it could not be told.
fn ended(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peerdex: {error:#}");
            ExitCode::FAILURE
        }
    }
}
