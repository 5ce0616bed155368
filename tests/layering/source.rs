//! Reads Rust source as far as imports go: which paths does a file name, and which of them only in tests.
//!
//! Not a parser: comments and literals are left out, braces are counted, and what looks like a path is one.
//! Paths out of a group (`use crate::{peer, time::Now}`) are put together.

use std::collections::BTreeSet;

/// A path as the file names it, first segments first; a group gives one path for each of its members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    pub segments: Vec<String>,
    pub line: usize,
    /// Whether it stands under `#[cfg(test)]` or `#[test]`.
    pub in_test: bool,
}

impl Path {
    pub fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Source {
    pub paths: Vec<Path>,
    /// Files that this one declares under `#[cfg(test)]`: `mod tests;`.
    pub test_modules: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Ident(String),
    /// `::`
    Path,
    Punct(char),
}

/// Reads one file. `module` is where it stands: `["peer", "types"]` for `src/peer/types.rs`, `["peer"]` for
/// its `mod.rs`; `super` is turned into what it means.
pub fn read(text: &str, module: &[&str]) -> Source {
    let tokens = tokens(text);
    let mut source = Source::default();
    // Depth of braces at which each inline module and each item under `#[cfg(test)]` began.
    let mut modules: Vec<(usize, String)> = Vec::new();
    let mut tests: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut test_is_next = false;
    let mut n = 0;
    while n < tokens.len() {
        let (token, line) = &tokens[n];
        match token {
            Token::Punct('#') => {
                let end = skip_group(&tokens, n + 1);
                let attribute = &tokens[n..end];
                test_is_next |= is_test_attribute(attribute);
                // An attribute may name a macro's path: `#[tokio::main]`, `#[derive(thiserror::Error)]`.
                let in_test = test_is_next || !tests.is_empty();
                collect(attribute, in_test, module, &modules, &mut source.paths);
                n = end;
                continue;
            }
            Token::Punct('{') => {
                if test_is_next {
                    tests.push(depth);
                    test_is_next = false;
                }
                depth += 1;
            }
            Token::Punct('}') => {
                depth = depth.saturating_sub(1);
                tests.retain(|began| *began < depth);
                modules.retain(|(began, _)| *began < depth);
            }
            Token::Punct(';') => test_is_next = false,
            Token::Ident(word) if word == "mod" => {
                if let Some((Token::Ident(name), _)) = tokens.get(n + 1) {
                    match tokens.get(n + 2) {
                        Some((Token::Punct('{'), _)) => modules.push((depth, name.clone())),
                        _ if test_is_next => {
                            source.test_modules.insert(name.clone());
                        }
                        _ => {}
                    }
                }
            }
            Token::Ident(word) if word == "use" => {
                let end = tokens[n..].iter().position(|(token, _)| *token == Token::Punct(';'));
                let end = n + end.unwrap_or(tokens.len() - n);
                let in_test = test_is_next || !tests.is_empty();
                let mut paths = Vec::new();
                expand(&tokens[n + 1..end], &[], &mut paths);
                source.paths.extend(paths.into_iter().filter(|segments| !segments.is_empty()).map(
                    |segments| Path { segments: absolute(segments, module, &modules), line: *line, in_test },
                ));
                n = end;
                continue;
            }
            Token::Ident(_) | Token::Punct(_) | Token::Path => {
                let in_test = test_is_next || !tests.is_empty();
                let end = path_end(&tokens, n);
                if end > n + 1 {
                    collect(&tokens[n..end], in_test, module, &modules, &mut source.paths);
                    n = end;
                    continue;
                }
                if let Token::Ident(word) = token
                    && (word == "async" || tokens.get(n + 1) == Some(&(Token::Punct('!'), *line)))
                {
                    // `async` and macros count as paths of one segment: `async`, `println`.
                    source.paths.push(Path { segments: vec![word.clone()], line: *line, in_test });
                }
            }
        }
        n += 1;
    }
    source
}

/// Where the path that starts at `n` ends; `n + 1` when it is a word alone.
fn path_end(tokens: &[(Token, usize)], n: usize) -> usize {
    let mut end = n;
    loop {
        match (
            tokens.get(end).map(|t| &t.0),
            tokens.get(end + 1).map(|t| &t.0),
            tokens.get(end + 2).map(|t| &t.0),
        ) {
            (Some(Token::Ident(_)), Some(Token::Path), Some(Token::Ident(_))) => end += 2,
            _ => return end + 1,
        }
    }
}

/// The paths among `tokens`, groups not expanded.
fn collect(
    tokens: &[(Token, usize)],
    in_test: bool,
    module: &[&str],
    modules: &[(usize, String)],
    paths: &mut Vec<Path>,
) {
    let mut n = 0;
    while n < tokens.len() {
        let end = path_end(tokens, n);
        if end > n + 1 {
            let segments = tokens[n..end].iter().filter_map(|(token, _)| match token {
                Token::Ident(word) => Some(word.clone()),
                Token::Path | Token::Punct(_) => None,
            });
            let segments = absolute(segments.collect(), module, modules);
            paths.push(Path { segments, line: tokens[n].1, in_test });
        }
        n = end.max(n + 1);
    }
}

/// `super` and `self` as what they mean: `crate::…`.
fn absolute(mut segments: Vec<String>, module: &[&str], modules: &[(usize, String)]) -> Vec<String> {
    if !matches!(segments.first().map(String::as_str), Some("super" | "self")) {
        return segments;
    }
    let mut here: Vec<String> = module.iter().map(|name| name.to_string()).collect();
    here.extend(modules.iter().map(|(_, name)| name.clone()));
    while let Some("super" | "self") = segments.first().map(String::as_str) {
        if segments.remove(0) == "super" {
            here.pop();
        }
    }
    here.insert(0, "crate".into());
    here.append(&mut segments);
    here
}

/// The members of a `use` tree.
fn expand(tokens: &[(Token, usize)], prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let mut segments = prefix.to_vec();
    let mut n = 0;
    let mut is_renamed = false;
    while n < tokens.len() {
        match &tokens[n].0 {
            Token::Ident(word) if word == "as" => is_renamed = true,
            Token::Ident(_) if is_renamed => is_renamed = false,
            Token::Ident(word) => segments.push(word.clone()),
            Token::Punct('{') => {
                let end = skip_group(tokens, n);
                expand(&tokens[n + 1..end - 1], &segments, paths);
                segments.clear();
                n = end;
                continue;
            }
            Token::Punct(',') => {
                paths.push(std::mem::replace(&mut segments, prefix.to_vec()));
            }
            Token::Path | Token::Punct(_) => {}
        }
        n += 1;
    }
    if segments.len() > prefix.len() || (tokens.is_empty() && !segments.is_empty()) {
        paths.push(segments);
    }
}

/// The place after the group of brackets that begins at or after `n`.
fn skip_group(tokens: &[(Token, usize)], n: usize) -> usize {
    let mut open = 0;
    for (at, (token, _)) in tokens.iter().enumerate().skip(n) {
        match token {
            Token::Punct('(' | '[' | '{') => open += 1,
            Token::Punct(')' | ']' | '}') => {
                open -= 1;
                if open == 0 {
                    return at + 1;
                }
            }
            Token::Ident(_) | Token::Path | Token::Punct(_) => {}
        }
    }
    tokens.len()
}

/// `#[test]`, `#[cfg(test)]`, `#[cfg(any(test, …))]`; not `#[cfg(not(test))]`.
fn is_test_attribute(attribute: &[(Token, usize)]) -> bool {
    let words: Vec<&str> = attribute
        .iter()
        .filter_map(|(token, _)| match token {
            Token::Ident(word) => Some(word.as_str()),
            Token::Path | Token::Punct(_) => None,
        })
        .collect();
    words == ["test"] || (words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not"))
}

/// Words and signs with their lines; comments and literals are left out.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut n, mut line) = (0, 1);
    let starts = |n: usize, what: &str| what.chars().enumerate().all(|(k, c)| chars.get(n + k) == Some(&c));
    while n < chars.len() {
        let c = chars[n];
        let start = n;
        if c.is_whitespace() {
            n += 1;
        } else if starts(n, "//") {
            while n < chars.len() && chars[n] != '\n' {
                n += 1;
            }
        } else if starts(n, "/*") {
            let mut open = 0;
            while n < chars.len() {
                match (starts(n, "/*"), starts(n, "*/")) {
                    (true, _) => open += 1,
                    (_, true) => open -= 1,
                    _ => {
                        n += 1;
                        continue;
                    }
                }
                n += 2;
                if open == 0 {
                    break;
                }
            }
        } else if c == '"' {
            n = end_of_string(&chars, n);
        } else if let Some(end) = end_of_raw_string(&chars, n) {
            n = end;
        } else if c == 'b' && chars.get(n + 1) == Some(&'"') {
            n = end_of_string(&chars, n + 1);
        } else if c == '\'' || (c == 'b' && chars.get(n + 1) == Some(&'\'')) {
            n = end_of_char(&chars, if c == 'b' { n + 1 } else { n });
        } else if c.is_alphanumeric() || c == '_' {
            while n < chars.len() && (chars[n].is_alphanumeric() || chars[n] == '_') {
                n += 1;
            }
            // A number is no path; `r#type` is the word `type`, read as two.
            if !c.is_numeric() {
                tokens.push((Token::Ident(chars[start..n].iter().collect()), line));
            }
        } else if starts(n, "::") {
            tokens.push((Token::Path, line));
            n += 2;
        } else {
            tokens.push((Token::Punct(c), line));
            n += 1;
        }
        line += chars[start..n.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn end_of_string(chars: &[char], quote: usize) -> usize {
    let mut n = quote + 1;
    while n < chars.len() && chars[n] != '"' {
        n += if chars[n] == '\\' { 2 } else { 1 };
    }
    n + 1
}

/// The end of `r"…"`, `r#"…"#` or `br"…"` that begins at `n`, if one does.
fn end_of_raw_string(chars: &[char], n: usize) -> Option<usize> {
    let after_b = n + usize::from(chars[n] == 'b');
    if chars.get(after_b) != Some(&'r') {
        return None;
    }
    let hashes = chars[after_b + 1..].iter().take_while(|c| **c == '#').count();
    let mut at = after_b + 1 + hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    loop {
        at += 1;
        match chars.get(at) {
            None => return Some(at),
            Some('"') if chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes => {
                return Some(at + 1 + hashes);
            }
            Some(_) => {}
        }
    }
}

/// The end of a character, or of the name of a lifetime, that begins with the quote at `n`.
fn end_of_char(chars: &[char], n: usize) -> usize {
    if chars.get(n + 1) == Some(&'\\') {
        let end = chars[n + 3..].iter().position(|c| *c == '\'');
        return end.map_or(chars.len(), |end| n + 3 + end + 1);
    }
    if chars.get(n + 2) == Some(&'\'') { n + 3 } else { n + 1 }
}
