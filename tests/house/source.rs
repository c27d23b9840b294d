//! Reading Rust as text, well enough for the house rules: a lexer that knows comments, every form of literal and
//! lifetimes; which tokens only tests compile; the paths that a file names; where its functions end.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::Violation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier, a keyword or a number.
    Word,
    /// One punctuation mark, or `::`, `->`, `=>`, `!=`.
    Mark,
    /// A string literal's content, escapes as written.
    Text,
    /// A character literal or a lifetime; no rule looks at them.
    Other,
}

#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) line: usize,
    /// Compiled for tests only.
    pub(crate) test: bool,
}

impl Token {
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Word | Kind::Mark)
    }
}

pub(crate) struct File {
    /// From the root of the project, with `/`: `src/kms/local.rs`.
    pub(crate) path: String,
    pub(crate) lines: usize,
    pub(crate) tokens: Vec<Token>,
}

impl File {
    pub(crate) fn violation(&self, line: usize, what: String) -> Violation {
        Violation { path: self.path.clone(), line, what }
    }

    /// The module path's folders and name: `["kms", "local"]`, `["kms"]` for its `mod.rs`.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.trim_end_matches("/mod").split('/').collect()
    }

    /// The top-level module.
    pub(crate) fn module(&self) -> &str {
        self.modules()[0]
    }

    pub(crate) fn depth(&self) -> usize {
        self.modules().len()
    }

    pub(crate) fn is_lib(&self) -> bool {
        self.path == "src/lib.rs"
    }

    /// Whether this is the file `home`, or in the folder `home`; see [`HOMES`].
    pub(crate) fn lives_at(&self, home: &str) -> bool {
        let stem = self.path.trim_end_matches(".rs");
        matches(home, stem) || self.path.starts_with(&format!("{home}/"))
    }

    /// What is compiled outside tests.
    pub(crate) fn code(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|t| !t.test)
    }

    /// Lines that are not tests; comments and blank lines count.
    pub(crate) fn lines_of_code(&self) -> usize {
        let mut lines = self.lines;
        for region in self.tokens.chunk_by(|a, b| a.test == b.test).filter(|region| region[0].test) {
            lines = lines.saturating_sub(region[region.len() - 1].line - region[0].line + 1);
        }
        lines
    }

    /// Every path that the code names: use trees flattened, `a::b::c` wherever it stands.
    pub(crate) fn names(&self) -> Vec<Name> {
        let code: Vec<_> = self.code().collect();
        let (mut names, mut braces, mut inline) = (Vec::new(), 0, Vec::new());
        let mut at = 0;
        while at < code.len() {
            let (before, token) = (at.checked_sub(1).map(|i| code[i]), code[at]);
            let next = code.get(at + 1);
            match token.text.as_str() {
                "{" if token.kind == Kind::Mark => braces += 1,
                "}" if token.kind == Kind::Mark => {
                    braces -= 1;
                    inline.retain(|depth| *depth <= braces);
                }
                "mod" if token.kind == Kind::Word && code.get(at + 2).is_some_and(|t| t.is("{")) => {
                    inline.push(braces + 1);
                }
                _ => {}
            }
            let declares_use = token.is("use") && next.is_some_and(|t| !t.is("<"));
            let declares_crate = token.is("extern") && next.is_some_and(|t| t.is("crate"));
            if declares_use || declares_crate {
                at += if declares_use { 1 } else { 2 };
                at = use_tree(&code, at, &[], inline.len(), &mut names);
                continue;
            }
            let declares_mod = before.is_some_and(|t| t.is("mod"));
            if token.kind == Kind::Word && !continues_a_path(&code, at) {
                let mut name = Name::new(token.line, inline.len());
                if declares_mod {
                    name.segments.push("self".to_owned());
                    name.imported = true;
                }
                name.segments.push(token.text.clone());
                while code.get(at + 1).is_some_and(|t| t.is("::"))
                    && let Some(segment) = code.get(at + 2).filter(|t| t.kind == Kind::Word)
                {
                    name.segments.push(segment.text.clone());
                    at += 2;
                }
                names.push(name);
            }
            at += 1;
        }
        names
    }

    /// Name, first line and length of each function that has a body.
    pub(crate) fn functions(&self) -> Vec<(&str, usize, usize)> {
        let code: Vec<_> = self.code().collect();
        let mut functions = Vec::new();
        for (at, pair) in code.windows(2).enumerate() {
            if pair[0].is("fn") && pair[1].kind == Kind::Word {
                let end = end_of_item(&code, at, Item::Block);
                if code[end].is("}") {
                    functions.push((pair[1].text.as_str(), pair[0].line, code[end].line - pair[0].line + 1));
                }
            }
        }
        functions
    }
}

/// A path that code names, `crate::kms::Kms`.
pub(crate) struct Name {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// `as` whatever.
    alias: Option<String>,
    /// By `use`, `extern crate` or `mod`.
    pub(crate) imported: bool,
    /// How many `mod … { }` of its file it stands in.
    pub(crate) inline_depth: usize,
}

impl Name {
    fn new(line: usize, inline_depth: usize) -> Self {
        Self { line, segments: Vec::new(), alias: None, imported: false, inline_depth }
    }

    pub(crate) fn root(&self) -> &str {
        self.segments.first().map_or("", String::as_str)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.imported && matches!(self.root(), "crate" | "self" | "super")
    }

    /// What the name is called in its file.
    pub(crate) fn binding(&self) -> Option<&str> {
        self.alias.as_ref().or(self.segments.last()).map(String::as_str)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments.join("::"))
    }
}

/// Whether the word at `at` follows `a::` or `<T>::`, rather than opening a path (perhaps an absolute one, `::a`).
fn continues_a_path(code: &[&Token], at: usize) -> bool {
    at >= 2 && code[at - 1].is("::") && (code[at - 2].kind == Kind::Word || code[at - 2].is(">"))
}

/// Flattens the use tree at `at`, whose path so far is `start`. Returns where it ends: at `,`, `}` or `;`.
fn use_tree(code: &[&Token], mut at: usize, start: &[String], inline_depth: usize, into: &mut Vec<Name>) -> usize {
    let Some(first) = code.get(at) else { return at };
    let mut name = Name { segments: start.to_vec(), imported: true, ..Name::new(first.line, inline_depth) };
    let mut grouped = false;
    while let Some(token) = code.get(at).filter(|t| !t.is(",") && !t.is("}") && !t.is(";")) {
        at += 1;
        if token.is("{") {
            grouped = true;
            while code.get(at).is_some_and(|t| !t.is("}") && !t.is(";")) {
                at = use_tree(code, at, &name.segments, inline_depth, into);
                at += usize::from(code.get(at).is_some_and(|t| t.is(",")));
            }
            at += usize::from(code.get(at).is_some_and(|t| t.is("}")));
        } else if token.is("as") {
            name.alias = code.get(at).map(|t| t.text.clone());
            at += 1;
        } else if !token.is("::") {
            name.line = token.line;
            name.segments.push(token.text.clone());
        }
    }
    if !grouped {
        into.push(name);
    }
    at
}

/// Source text to tokens. Comments, doc comments among them, vanish.
pub(crate) fn lex(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let word_from = |at: usize| chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let (from, kind);
        if starts(at, "//") {
            (from, kind) = (at, None);
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if starts(at, "/*") {
            (from, kind) = (at, None);
            let mut open = 0;
            while at < chars.len() {
                let (opens, closes) = (starts(at, "/*"), starts(at, "*/"));
                open = open + i32::from(opens) - i32::from(closes);
                at += if opens || closes { 2 } else { 1 };
                if open == 0 {
                    break;
                }
            }
        } else if let Some((open, len)) = string_at(&chars, at) {
            (from, kind) = (at, Some(Kind::Text));
            at = open + len;
        } else if starts(at, "'") || starts(at, "b'") {
            (from, kind) = (at, Some(Kind::Other));
            at += if starts(at, "b") { 2 } else { 1 };
            if starts(at, "\\") {
                at += 2;
                at += chars[at..].iter().take_while(|c| **c != '\'').count() + 1;
            } else if starts(at + 1, "'") {
                at += 2;
            } else {
                at += word_from(at);
            }
        } else if word_from(at) > 0 {
            (from, kind) = (at, Some(Kind::Word));
            at += word_from(at);
        } else {
            (from, kind) = (at, (!chars[at].is_whitespace()).then_some(Kind::Mark));
            at += if ["::", "->", "=>", "!="].iter().any(|mark| starts(at, mark)) { 2 } else { 1 };
        }
        let text: String = chars[from..at.min(chars.len())].iter().collect();
        let lines = text.matches('\n').count();
        if let Some(kind) = kind {
            let text = if kind == Kind::Text { content(&text) } else { text };
            tokens.push(Token { kind, text, line, test: false });
        }
        line += lines;
    }
    tokens
}

/// If a string literal of any form starts at `at`: where, and how long it is, quotes and prefix included.
fn string_at(chars: &[char], at: usize) -> Option<(usize, usize)> {
    let rest = &chars[at..];
    let prefix = rest.iter().take(2).take_while(|c| matches!(c, 'b' | 'c' | 'r')).count();
    let raw = prefix > 0 && rest[prefix - 1] == 'r';
    let hashes = if raw { rest[prefix..].iter().take_while(|c| **c == '#').count() } else { 0 };
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let mut end = open + 1;
    while end < rest.len() {
        if !raw && rest[end] == '\\' {
            end += 1;
        } else if rest[end] == '"' && rest[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return Some((at, end + 1 + hashes));
        }
        end += 1;
    }
    Some((at, rest.len()))
}

/// What stands between a literal's quotes.
fn content(literal: &str) -> String {
    let inner = literal.trim_start_matches(['b', 'c', 'r']).trim_matches('#');
    inner.strip_prefix('"').unwrap_or(inner).trim_end_matches('"').to_owned()
}

/// How an item ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    /// By its first `{ }`, or by `;` before one: functions, modules, types, impls.
    Block,
    /// By `;`: imports, constants.
    Statement,
    /// By `,` or where its surroundings end: fields, variants, arms, expressions.
    Element,
}

/// The last token of the item at `at`.
fn end_of_item(code: &[&Token], at: usize, item: Item) -> usize {
    let mut open = 0;
    for (i, token) in code.iter().enumerate().skip(at).filter(|(_, t)| t.kind == Kind::Mark) {
        match token.text.as_str() {
            "(" | "[" | "{" => open += 1,
            ")" | "]" | "}" => {
                open -= 1;
                if open < 0 {
                    return i - 1;
                }
                if open == 0 && token.is("}") && item == Item::Block {
                    return i;
                }
            }
            ";" if open == 0 => return i,
            "," if open == 0 && item == Item::Element => return i,
            _ => {}
        }
    }
    code.len() - 1
}

/// Marks what is compiled for tests only, and returns the names of modules that are, but stand in files of their own.
fn mark_tests(tokens: &mut [Token]) -> Vec<String> {
    let mut ranges = Vec::new();
    let mut modules = Vec::new();
    let view: Vec<_> = tokens.iter().collect();
    for (at, token) in view.iter().enumerate().filter(|(_, t)| t.is("#")) {
        let inner = view.get(at + 1).is_some_and(|t| t.is("!"));
        let open = at + 1 + usize::from(inner);
        if !token.is("#") || view.get(open).is_none_or(|t| !t.is("[")) {
            continue;
        }
        let close = closing(&view, open);
        let attribute: String = view[open + 1..close].iter().map(|t| t.text.as_str()).collect();
        let only_tests = matches!(attribute.as_str(), "test" | "tokio::test" | "cfg(test)")
            || attribute.starts_with("tokio::test(")
            || attribute.starts_with("cfg(all(test,");
        if !only_tests {
            continue;
        }
        if inner {
            ranges.push((at, view.len() - 1));
            continue;
        }
        let mut item = close + 1;
        while view.get(item).is_some_and(|t| t.is("#")) {
            item = closing(&view, item + 1) + 1;
        }
        if view.get(item).is_some_and(|t| t.is("pub")) {
            item += 1;
            if view.get(item).is_some_and(|t| t.is("(")) {
                item = closing(&view, item) + 1;
            }
        }
        let Some(keyword) = view.get(item) else { continue };
        let end = end_of_item(&view, item, kind_of_item(&keyword.text));
        if keyword.is("mod") && view[end].is(";") {
            modules.push(view[item + 1].text.clone());
        }
        ranges.push((at, end));
    }
    for (from, to) in ranges {
        tokens[from..=to].iter_mut().for_each(|t| t.test = true);
    }
    modules
}

fn kind_of_item(keyword: &str) -> Item {
    match keyword {
        "use" | "static" | "type" | "let" => Item::Statement,
        // `const fn` has no `;` before its block, a constant's value may have a block before its `;`: either end serves.
        "mod" | "fn" | "const" | "struct" | "enum" | "union" | "impl" | "trait" | "unsafe" | "async" | "extern"
        | "macro_rules" => Item::Block,
        _ => Item::Element,
    }
}

/// Where the bracket at `open` closes.
fn closing(code: &[&Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in code.iter().enumerate().skip(open).filter(|(_, t)| t.kind == Kind::Mark) {
        depth += i32::from(matches!(token.text.as_str(), "(" | "[" | "{"));
        depth -= i32::from(matches!(token.text.as_str(), ")" | "]" | "}"));
        if depth == 0 {
            return i;
        }
    }
    code.len() - 1
}

/// Whether `text` is `pattern`, whose trailing `*` is any ending.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == text, |start| text.starts_with(start))
}

/// Lexes (path, text) pairs, and marks the files that only tests compile.
pub(crate) fn house<P: Into<String>, T: AsRef<str>>(sources: impl IntoIterator<Item = (P, T)>) -> Vec<File> {
    let mut files = Vec::new();
    let mut only_tests = Vec::new();
    for (path, text) in sources {
        let (path, text) = (path.into(), text.as_ref());
        let mut tokens = lex(text);
        let modules = mark_tests(&mut tokens);
        let folder = path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/lib").to_owned();
        only_tests.extend(modules.iter().map(|m| format!("{folder}/{m}")));
        files.push(File { path, lines: text.lines().count(), tokens });
    }
    for file in &mut files {
        if only_tests.iter().any(|stem| file.lives_at(stem)) {
            file.tokens.iter_mut().for_each(|t| t.test = true);
        }
    }
    files
}

/// Every Rust file under src.
pub(crate) fn tree() -> Vec<File> {
    fn walk(folder: &Path, sources: &mut Vec<(String, String)>) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                walk(&path, sources);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8 text");
                let parts = path.strip_prefix(root).expect("src is in the root").components();
                let parts: Vec<_> = parts.map(|c| c.as_os_str().to_str().expect("a source file's name")).collect();
                sources.push((parts.join("/"), text));
            }
        }
    }
    let mut sources = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    sources.sort();
    house(sources)
}
