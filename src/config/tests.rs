use super::*;

fn run(args: &[&str], env: &[(&str, &str)], file: &str) -> Result<Command, ConfigError> {
    let args = std::iter::once("peerdex").chain(args.iter().copied()).map(OsString::from);
    let env = env.iter().map(|(key, value)| (OsString::from(key), OsString::from(value)));
    load(args, env, |path| {
        if path == Path::new("p.toml") {
            Ok(file.to_string())
        } else {
            Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such file"))
        }
    })
}

fn config(args: &[&str], env: &[(&str, &str)], file: &str) -> Config {
    match run(args, env, file).unwrap() {
        Command::Run(config) => *config,
        other => panic!("{other:?}"),
    }
}

fn error(args: &[&str], env: &[(&str, &str)], file: &str) -> String {
    run(args, env, file).unwrap_err().to_string()
}

#[test]
fn defaults_are_mainnet_served_to_this_machine() {
    let config = config(&["--connect", "localhost"], &[("HOME", "/home/alice")], "");

    assert_eq!(config.network, Network::Bitcoin);
    assert_eq!(config.connect, [HostPort { host: "localhost".into(), port: 8333 }]);
    assert_eq!(config.data_dir, Path::new("/home/alice/.local/share/peerdex/mainnet"));
    assert_eq!(config.services.listen, [Service::default_for(Network::Bitcoin)]);
    assert_eq!((config.services.report.len(), config.services.max_sessions), (0, 1000));
    assert_eq!((config.log, config.min_chain_work), (LogLevel::Info, None));
}

#[test]
fn each_network_has_its_folder_and_ports() {
    for (name, peer, service) in [
        ("testnet3", 18333, 60001),
        ("testnet4", 48333, 60001),
        ("signet", 38333, 60001),
        ("regtest", 18444, 60401),
    ] {
        let config = config(&["--network", name, "--connect", "node"], &[("XDG_DATA_HOME", "/data")], "");
        assert_eq!(config.data_dir, Path::new("/data/peerdex").join(name));
        assert_eq!(config.connect[0].port, peer);
        assert_eq!(config.services.listen[0].to_string(), format!("tcp://127.0.0.1:{service}"));
    }
}

#[test]
fn arguments_beat_the_environment_and_the_environment_beats_the_file() {
    let file = "network = 'signet'\nlog = 'error'\nconnect = ['a:1', 'b:2']\ndata-dir = '/file'";
    let env =
        [("PEERDEX_NETWORK", "testnet4"), ("PEERDEX_CONNECT", "c:3, d:4"), ("PEERDEX_CONFIG", "p.toml")];

    let config = config(&["--network", "regtest"], &env, file);

    assert_eq!(config.network, Network::Regtest);
    assert_eq!(config.connect.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c:3", "d:4"]);
    assert_eq!(config.log, LogLevel::Error);
    assert_eq!(config.data_dir, Path::new("/file"));
}

#[test]
fn what_is_unknown_names_itself_and_says_what_is_allowed() {
    let base = ["--connect", "a", "--data-dir", "/d", "--config", "p.toml"];
    let text = error(&base, &[], "colour = 'red'");
    assert!(text.starts_with("p.toml: colour: unknown setting; known are network, connect"), "{text}");
    let text = error(&base[..4], &[("PEERDEX_COLOUR", "red")], "");
    assert!(
        text.starts_with("PEERDEX_COLOUR: unknown setting; known are PEERDEX_CONFIG, PEERDEX_NETWORK"),
        "{text}"
    );
    let text = error(&["--colour", "red"], &[], "");
    assert!(text.contains("'--colour'"), "{text}");
    let text = error(&["--config", "q.toml"], &[], "");
    assert_eq!(text, "--config: cannot read 'q.toml': no such file");
}

#[test]
fn a_bad_value_names_its_setting_and_where_it_stood() {
    for (args, env, file, expected) in [
        (
            &["--network", "main"][..],
            &[][..],
            "",
            "--network: 'main' is none of mainnet, testnet3, testnet4, signet, regtest",
        ),
        (
            &[],
            &[("PEERDEX_LOG", "loud")],
            "",
            "PEERDEX_LOG: 'loud' is none of error, warn, info, debug, trace",
        ),
        (
            &["--config", "p.toml"],
            &[],
            "service = 'http://a:1'",
            "p.toml: service: 'http://a:1' is no service: begin with tcp://, ssl://, ws://, wss:// or rpc://, \
             for example tcp://127.0.0.1:50001",
        ),
        (
            &["--config", "p.toml"],
            &[],
            "network = 3",
            "p.toml: network: '3' is none of mainnet, testnet3, testnet4, signet, regtest",
        ),
        (
            &["--min-chain-work", "xyz"],
            &[],
            "",
            "--min-chain-work: 'xyz' is no chain work: give 1 to 64 hex digits, for example 0",
        ),
        (
            &["--connect", "a:0"],
            &[],
            "",
            "--connect: 'a:0' is no peer: give HOST:PORT, for example 127.0.0.1:8333",
        ),
        (
            &["--connect", "[::1"],
            &[],
            "",
            "--connect: '[::1' is no peer: give HOST:PORT, for example 127.0.0.1:8333",
        ),
        (
            &["--connect", "a b:1"],
            &[],
            "",
            "--connect: 'a b:1' is no peer: give HOST:PORT, for example 127.0.0.1:8333",
        ),
    ] {
        let mut env = env.to_vec();
        env.push(("HOME", "/h"));
        if !args.contains(&"--connect") {
            env.push(("PEERDEX_CONNECT", "node"));
        }
        assert_eq!(error(args, &env, file), expected);
    }
}

#[test]
fn without_a_peer_it_says_what_to_do() {
    let text = error(&["--network", "regtest"], &[("HOME", "/h")], "");
    assert!(text.contains("--connect HOST:PORT") && text.contains("127.0.0.1:18444"), "{text}");
}

#[test]
fn peers_may_be_ipv6_and_work_may_be_short() {
    let config = config(
        &["--connect", "[::1]:9", "--connect", "::2,xyz.onion", "--min-chain-work", "ff", "--data-dir", "/d"],
        &[],
        "",
    );
    let shown: Vec<String> = config.connect.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["[::1]:9", "[::2]:8333", "xyz.onion:8333"]);
    let mut expected = [0; 32];
    expected[31] = 0xff;
    assert_eq!(config.min_chain_work, Some(Work::from_be_bytes(expected)));
}

#[test]
fn services_may_be_many_and_each_has_its_own_address() {
    let peer = ["--connect", "a", "--data-dir", "/d"];
    let args = ["--service", "tcp://,ssl://", "--service", "rpc://", "--report-service", "ssl://e.org:443"];
    let services = config(&[&peer[..], &args].concat(), &[], "").services;
    let shown: Vec<String> = services.listen.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["tcp://:50001", "ssl://:50002", "rpc://localhost:8000"]);
    assert_eq!(services.report[0].to_string(), "ssl://e.org:443");

    for (args, says) in [
        (["--service", "tcp://:1,ssl://:1"], "'ssl://:1' has the address of another service"),
        (["--report-service", "ssl://e.org:1,ssl://e.org:2"], "'ssl://e.org:2' names host and protocol"),
        (["--report-service", "ssl://localhost"], "'ssl://localhost' is nothing that others can reach"),
        (["--max-sessions", "0"], "'0' is no number of sessions"),
        (["--proxy-protocol-from", "10.0.0.0/99"], "'10.0.0.0/99' is no address or subnet"),
        (["--ssl-certfile", "a.pem"], "give --ssl-keyfile too"),
        (["--ssl-keyfile", "a.pem"], "give --ssl-certfile too"),
    ] {
        let text = error(&[&peer[..], &args].concat(), &[], "");
        assert!(text.starts_with(args[0]) && text.contains(says), "{text}");
    }
    let file = "ssl-certfile = 'c.pem'\nssl-keyfile = 'k.pem'\nmax-sessions = 7\nproxy-protocol-from = '::1'";
    let services = config(&[&peer[..], &["--config", "p.toml"]].concat(), &[], file).services;
    let files = CertificateFiles { certificates: "c.pem".into(), key: "k.pem".into() };
    assert_eq!((services.certificate, services.max_sessions), (Some(files), 7));
    assert!(services.proxies[0].contains("::1".parse().unwrap()));
}

#[test]
fn help_and_version_are_printed() {
    match run(&["--help"], &[], "").unwrap() {
        Command::Print(text) => {
            assert!(text.contains("--min-chain-work") && text.contains("PEERDEX_DATA_DIR"), "{text}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        run(&["--version"], &[], "").unwrap(),
        Command::Print(format!("peerdex {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn an_import_names_its_files_and_needs_a_peer_only_to_go_on() {
    let base = ["--data-dir", "/d"];
    let paths = vec![PathBuf::from("/core"), PathBuf::from("boot.dat")];
    let args = [&base[..], &["import", "/core", "boot.dat", "--connect", "a:1"]].concat();
    match run(&args, &[], "").unwrap() {
        Command::Import(config, import) => {
            assert_eq!(config.connect.len(), 1);
            assert_eq!(import, Import { paths: paths.clone(), stop_after: false });
        }
        other => panic!("{other:?}"),
    }
    // Settings may stand behind the word, too.
    let args =
        ["import", "/core", "boot.dat", "--stop-after-import", "--network", "regtest", "--data-dir", "/d"];
    match run(&args, &[], "").unwrap() {
        Command::Import(config, import) => {
            assert_eq!((config.network, config.connect.len()), (Network::Regtest, 0));
            assert_eq!(import, Import { paths, stop_after: true });
        }
        other => panic!("{other:?}"),
    }
    let text = error(&[&base[..], &["import", "/core"]].concat(), &[], "");
    assert!(text.contains("--connect HOST:PORT"), "{text}");
    let text = error(&[&base[..], &["import", "--stop-after-import"]].concat(), &[], "");
    assert!(text.contains("PATH"), "{text}");
    let text = error(&[&base[..], &["--stop-after-import"]].concat(), &[], "");
    assert!(text.contains("--stop-after-import"), "{text}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}", name in "[a-z-]{0,14}") {
        let _ = run(&["--config", "p.toml", &text], &[("PEERDEX_CONNECT", &text)], &text);
        let result = run(&["--config", "p.toml"], &[], &format!("{name} = {text}"));
        // Whatever it says, it says it in words.
        proptest::prop_assert!(result.map_or_else(|error| !error.to_string().is_empty(), |_| true));
    }
}

#[test]
fn commands_that_look_at_a_folder_need_no_peer() {
    let folder = Folder { network: Network::Signet, data_dir: "/data".into(), memory_mb: 512 };
    let args = ["--network", "signet", "--data-dir", "/data", "--memory", "512"];
    let asked = |verb: &'static str| run(&[&[verb], &args[..]].concat(), &[], "").unwrap();
    assert_eq!(asked("info"), Command::Info(folder.clone()));
    assert_eq!(asked("check"), Command::Check(folder.clone()));
    // After the settings it means the same, and these may stand anywhere.
    assert_eq!(run(&[&args[..], &["info"]].concat(), &[], "").unwrap(), Command::Info(folder.clone()));
    let env = [("PEERDEX_NETWORK", "signet"), ("PEERDEX_DATA_DIR", "/data"), ("PEERDEX_MEMORY", "512")];
    assert_eq!(run(&["info"], &env, "").unwrap(), Command::Info(folder));

    assert!(matches!(run(&["run", "--connect", "a"], &[("HOME", "/")], ""), Ok(Command::Run(_))));
    assert!(error(&["run"], &[("HOME", "/")], "").contains("--connect HOST:PORT"));
    let unknown = error(&["repair"], &[], "");
    assert!(unknown.contains("repair"), "{unknown}");
}

#[test]
fn the_operators_question_goes_where_the_settings_serve_it() {
    let asked = |args: &[&str], env: &[(&str, &str)]| match run(args, env, "").unwrap() {
        Command::Rpc(call) => (call.service.to_string(), call.method, call.args),
        other => panic!("{other:?}"),
    };
    let all = ["rpc", "disconnect", "5", "7"];
    let said = (String::from("rpc://localhost:8000"), "disconnect".to_string(), vec!["5".into(), "7".into()]);
    assert_eq!(asked(&all, &[]), said);
    let service = [("PEERDEX_SERVICE", "tcp://,rpc://0.0.0.0:9")];
    assert_eq!(asked(&["rpc", "stop"], &service).0, "rpc://0.0.0.0:9");
    assert_eq!(asked(&["rpc", "stop", "--rpc", "/run/p.sock"], &service).0, "rpc:///run/p.sock");
    assert!(
        error(&["rpc", "stop", "--rpc", "nowhere"], &[], "").starts_with("--rpc: 'nowhere' names no address")
    );
    assert!(error(&["rpc"], &[], "").contains("METHOD"));
}

#[test]
fn disk_space_is_ignored_when_told_so_anywhere() {
    let home = ("HOME", "/home/alice");
    let peer = ["--connect", "a"];
    assert!(!config(&peer, &[home], "").ignore_disk_space);
    assert!(config(&[peer[0], peer[1], "--ignore-disk-space"], &[home], "").ignore_disk_space);
    assert!(config(&peer, &[home, ("PEERDEX_IGNORE_DISK_SPACE", "true")], "").ignore_disk_space);
    let file = [home, ("PEERDEX_CONFIG", "p.toml")];
    assert!(config(&peer, &file, "ignore-disk-space = true").ignore_disk_space);
    assert!(!config(&peer, &file, "ignore-disk-space = 'false'").ignore_disk_space);
    let wrong = error(&peer, &[home, ("PEERDEX_IGNORE_DISK_SPACE", "maybe")], "");
    assert!(wrong.contains("PEERDEX_IGNORE_DISK_SPACE") && wrong.contains("true nor false"), "{wrong}");
}

#[test]
fn a_trusted_peer_is_connected_to_once() {
    let args = ["--network", "regtest", "--connect", "a", "--trust", "b", "--connect", "b", "--trust", "c"];
    let config = config(&[&args[..], &["--data-dir", "/d"]].concat(), &[], "");
    let shown = |peers: &[HostPort]| peers.iter().map(|peer| peer.host.clone()).collect::<Vec<_>>();
    assert_eq!(
        (shown(&config.connect), shown(&config.trust)),
        (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec!["b".to_owned(), "c".to_owned()])
    );
}

#[test]
fn the_mempool_is_as_large_as_it_is_told() {
    let base = ["--connect", "a", "--data-dir", "/d"];
    let policy = |args: &[&str]| config(&[&base[..], args].concat(), &[], "").policy;
    assert_eq!(policy(&[]), Policy::core());
    let small = policy(&["--max-mempool", "5", "--mempool-expiry", "2"]);
    assert_eq!((small.max_bytes, small.expiry.as_secs()), (5_000_000, 7_200));
    let refused = run(&[&base[..], &["--max-mempool", "4"]].concat(), &[], "").unwrap_err().to_string();
    assert!(refused.starts_with("--max-mempool: '4'"), "{refused}");
}

#[test]
fn with_a_proxy_broadcasts_are_private_unless_the_operator_says_no() {
    let base = ["--connect", "a", "--data-dir", "/d"];
    let with = |more: &[&str]| config(&[&base[..], more].concat(), &[], "");
    assert_eq!((with(&[]).proxy, with(&[]).private_broadcast), (None, false));
    let tor = with(&["--proxy", "127.0.0.1"]);
    assert_eq!((tor.proxy.unwrap().to_string(), tor.private_broadcast), ("127.0.0.1:9050".into(), true));
    let other = with(&["--proxy", "[::1]:9150", "--private-broadcast", "false"]);
    assert_eq!((other.proxy.unwrap().to_string(), other.private_broadcast), ("[::1]:9150".into(), false));

    let text = error(&[&base[..], &["--private-broadcast", "true"]].concat(), &[], "");
    assert_eq!(text, "--private-broadcast: 'true' needs a proxy: give --proxy HOST:PORT too");
    let text = error(&[&base[..], &["--proxy", "tor:port"]].concat(), &[], "");
    assert_eq!(text, "--proxy: 'tor:port' is no proxy: give HOST:PORT, for example 127.0.0.1:9050");
}
