//! Who may import whom, held by reading the source (the table of `docs/architecture.md`).
//!
//! The table allows by name: a stage may use what its row lists and nothing else, so a new dependency is a
//! decision that is made here. What stands under `#[cfg(test)]` may use other crates, not other stages.

#![allow(clippy::unwrap_used)]

#[path = "layering/source.rs"]
mod source;
#[path = "layering/table.rs"]
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use table::{CHAINSTORE, DISK, LAYERS, Layer, Purity, Store, WORLD};

/// What a file of a layer does that its row does not allow, in words.
fn violations(
    layer: &Layer,
    file: &str,
    source: &source::Source,
    is_test: bool,
    world: &World,
) -> Vec<String> {
    let mut found = Vec::new();
    for path in &source.paths {
        let in_test = is_test || path.in_test;
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        let mut report = |what: String| found.push(format!("{file}:{}: {what}", path.line));
        match segments[..] {
            // The store's own modules may be called like a stage.
            ["crate", ..] if layer.name == "chainstore" => {}
            ["crate" | "peerdex", stage, ..] if world.stages.contains(stage) => {
                let is_allowed = stage == layer.name || layer.ours.contains(&stage);
                if !is_allowed {
                    report(format!("{} may not import {stage}: {}", layer.name, path.text()));
                }
            }
            ["chainstore", item, ..] if layer.name != "chainstore" => {
                let is_allowed = match layer.store {
                    Store::Nothing => false,
                    Store::Types => item == "types" || world.store_types.contains(item),
                    Store::Everything => true,
                };
                // A test may build on a store of its own.
                let is_allowed = is_allowed || (in_test && layer.store == Store::Types);
                if !is_allowed {
                    report(format!("{} may not import {} of the store", layer.name, path.text()));
                }
            }
            [first, ..] if world.crates.contains(first) && first != "chainstore" && first != "bitcoin" => {
                let is_allowed = layer.others.contains(&first) || layer.others == ["*"];
                if !is_allowed && !in_test {
                    report(format!("{} may not use the crate {first}", layer.name));
                }
            }
            _ => {}
        }
        let text = format!("::{}::", path.text());
        let touches = |list: &[&str]| list.iter().any(|what| text.contains(&format!("::{what}::")));
        let is_impure = match layer.purity {
            Purity::Pure => touches(WORLD) || touches(DISK),
            Purity::Disk => touches(WORLD),
            Purity::World => false,
        };
        if is_impure && !in_test {
            report(format!("{} is pure: no {}", layer.name, path.text()));
        }
    }
    found
}

/// What names mean in this repository.
struct World {
    stages: BTreeSet<&'static str>,
    store_types: BTreeSet<String>,
    /// Every dependency, as source spells it.
    crates: BTreeSet<String>,
}

impl World {
    fn read() -> Self {
        let mut crates = BTreeSet::new();
        for manifest in ["Cargo.toml", "chainstore/Cargo.toml"] {
            let text = std::fs::read_to_string(root().join(manifest)).unwrap();
            let manifest: toml::Table = text.parse().unwrap();
            for section in ["dependencies", "dev-dependencies"] {
                let names = manifest.get(section).and_then(toml::Value::as_table).unwrap().keys();
                crates.extend(names.map(|name| name.replace('-', "_")));
            }
        }
        let words = ["types", "outline"]
            .map(|file| std::fs::read_to_string(root().join(format!("chainstore/src/{file}.rs"))).unwrap());
        let store_types = words.iter().flat_map(|file| file.lines()).filter_map(|line| {
            let mut words = line.strip_prefix("pub ")?.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.find(|word| ["struct", "enum", "fn", "const", "type", "trait"].contains(word))?;
            words.find(|word| *word != "fn").map(str::to_string)
        });
        Self {
            stages: LAYERS
                .iter()
                .map(|layer| layer.name)
                .filter(|name| !["lib", "main"].contains(name))
                .collect(),
            store_types: store_types.collect(),
            crates,
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file under a folder: its path from there, and its text.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), text);
            }
        }
    }
    found
}

/// Reads all files of a crate and reports what their layers forbid. `layer_of` names a file's layer.
fn check(
    files: &BTreeMap<PathBuf, String>,
    layer_of: impl Fn(&str) -> Option<&'static Layer>,
    world: &World,
) -> Vec<String> {
    let mut read = BTreeMap::new();
    let mut test_files = BTreeSet::new();
    for (path, text) in files {
        let mut module: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let file = module.pop().unwrap().trim_end_matches(".rs");
        let folder: PathBuf = module.iter().collect();
        let below = if ["mod", "lib", "main"].contains(&file) { folder } else { folder.join(file) };
        if !["mod", "lib", "main"].contains(&file) {
            module.push(file);
        }
        let source = source::read(text, &module);
        for name in &source.test_modules {
            test_files.insert(below.join(format!("{name}.rs")));
            test_files.insert(below.join(name));
        }
        read.insert(path, source);
    }
    let mut found = Vec::new();
    for (path, source) in read {
        let first = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(layer) = layer_of(first) else {
            found.push(format!("{}: no row of the table says what it may import", path.display()));
            continue;
        };
        let is_test = path.ancestors().any(|part| test_files.contains(part));
        found.extend(violations(layer, &path.display().to_string(), &source, is_test, world));
    }
    found
}

fn layer_of_server(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

#[test]
fn each_stage_imports_only_what_its_row_allows() {
    let found = check(&sources(&root().join("src")), layer_of_server, &World::read());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_store_knows_nothing_of_the_server() {
    let found = check(&sources(&root().join("chainstore/src")), |_| Some(&CHAINSTORE), &World::read());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_reader_of_source_finds_what_is_hidden() {
    let text = r##"
        //! Says `crate::io::nothing`, in a comment.
        use crate::{peer::{PeerId, types::Message as M}, time};
        use super::super::blocks;
        /* crate::query /* nested */ crate::node */
        const A: &str = "crate::electrum"; const B: &str = r#"crate::config"#; const C: char = '"';
        fn f<'a>(x: &'a str) -> crate::headers::HeaderSync { tokio::spawn(async { println!("{x}") }) }
        #[derive(thiserror::Error)]
        struct S;
        #[cfg(test)]
        mod tests {
            use super::*;
            use super::super::super::io::run;
            fn g() { proptest::run() }
        }
        fn h() { std::fs::read() }
        #[cfg(test)]
        mod more;
    "##;
    let source = source::read(text, &["validate", "block"]);
    let of = |in_test| {
        let paths = source.paths.iter().filter(move |path| path.in_test == in_test);
        paths.map(source::Path::text).collect::<Vec<_>>()
    };
    assert_eq!(
        of(false),
        [
            "crate::peer::PeerId",
            "crate::peer::types::Message",
            "crate::time",
            "crate::blocks",
            "crate::headers::HeaderSync",
            "tokio::spawn",
            "async",
            "println",
            "thiserror::Error",
            "std::fs::read",
        ]
    );
    assert_eq!(of(true), ["crate::validate::block", "crate::io::run", "proptest::run"]);
    assert!(source.test_modules.contains("more"));
}

#[test]
fn what_the_table_forbids_is_found() {
    let world = World::read();
    let found = |file: &str, text: &str| {
        let files = BTreeMap::from([(PathBuf::from(file), text.to_string())]);
        check(&files, layer_of_server, &world)
    };
    let fails = [
        ("validate/mod.rs", "use crate::peer::PeerId;", "validate may not import peer"),
        (
            "peer/session.rs",
            "fn f(sync: &super::super::headers::HeaderSync) {}",
            "peer may not import headers",
        ),
        ("headers/sync.rs", "use crate::{time::Now, io};", "headers may not import io"),
        ("headers/sync.rs", "use chainstore::Store;", "headers may not import chainstore::Store"),
        (
            "electrum/session.rs",
            "use chainstore::{Height, Snapshot};",
            "electrum may not import chainstore::Snap",
        ),
        ("blocks/mod.rs", "fn f() { serde_json::json!(1); }", "blocks may not use the crate serde_json"),
        ("blocks/mod.rs", "use std::fs;", "blocks is pure: no std::fs"),
        ("node/mod.rs", "async fn f() {}", "node is pure: no async"),
        ("node/mod.rs", "fn f() { let now = std::time::Instant::now(); }", "node is pure"),
        ("query/mod.rs", "use std::sync::{Arc, Mutex};", "query is pure: no std::sync::Mutex"),
        ("peer/mod.rs", "fn f() { tracing::info!(\"x\"); }", "peer may not use the crate tracing"),
        ("new/mod.rs", "", "no row of the table"),
        (
            "peer/mod.rs",
            "#[cfg(test)] mod tests { use crate::blocks::BlockSync; }",
            "peer may not import blocks",
        ),
    ];
    for (file, text, expected) in fails {
        let found = found(file, text);
        assert!(found.iter().any(|line| line.contains(expected)), "{text}: {found:?}");
    }
    let passes = [
        ("headers/sync.rs", "use chainstore::{Height, Tip};"),
        ("blocks/mod.rs", "use crate::headers::HeaderTree; use std::sync::Arc;"),
        (
            "validate/mod.rs",
            "#[cfg(test)] mod tests { use proptest::prelude::*; fn f() { std::fs::read(\"x\"); } }",
        ),
        ("io/mod.rs", "async fn f() { tokio::spawn(crate::node::run()); }"),
    ];
    for (file, text) in passes {
        assert_eq!(found(file, text), Vec::<String>::new(), "{text}");
    }
    let with_tests = BTreeMap::from([
        (PathBuf::from("peer/mod.rs"), "#[cfg(test)] mod tests;".to_string()),
        (PathBuf::from("peer/tests.rs"), "use proptest::prelude::*;".to_string()),
    ]);
    assert_eq!(check(&with_tests, layer_of_server, &world), Vec::<String>::new());
}

/// Places of `needles` in a text, by line.
fn names(text: &str, needles: &[String]) -> Vec<String> {
    let is_start =
        |before: Option<char>| before.is_none_or(|c| !(c.is_alphanumeric() || "/_.-~".contains(c)));
    let is_end = |after: Option<char>| after.is_none_or(|c| !(c.is_alphanumeric() || "_-".contains(c)));
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for needle in needles {
            let hit = line.match_indices(needle.as_str()).any(|(at, _)| {
                is_start(line[..at].chars().next_back()) && is_end(line[at + needle.len()..].chars().next())
            });
            if hit {
                found.push(format!("{}: {line}", number + 1));
            }
        }
    }
    found
}

/// What the repository must not name: folders of the machine that it was written on.
fn machine_paths() -> Vec<String> {
    // Put together, so that this file does not name them.
    vec![["..", "shared"].join("/"), ["", "work"].join("/")]
}

#[test]
fn no_file_names_a_folder_of_the_machine() {
    let skipped = [".git", "target"];
    let mut folders = vec![root()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if skipped.contains(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let hits = names(&text, &machine_paths());
                found.extend(hits.iter().map(|hit| format!("{}:{hit}", path.display())));
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_folder_of_the_machine_is_found_where_it_is_named() {
    let [shared, work] = &machine_paths()[..] else { panic!("there are two") };
    for text in [format!("cp {shared}/data ."), format!("cd {work}/main"), format!("`{work}`"), work.clone()]
    {
        assert_eq!(names(&text, &machine_paths()).len(), 1, "{text}");
    }
    for text in [format!("docs{work}"), format!("{work}space"), format!("a{shared}")] {
        assert_eq!(names(&text, &machine_paths()), Vec::<String>::new(), "{text}");
    }
}
