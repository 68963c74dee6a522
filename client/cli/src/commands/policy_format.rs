//! Formats HCL: two spaces a level, one attribute a line, `=` aligned among neighbours. Comments and strings stay.
//! It works on tokens, so what it does not know keeps its words and only moves. It checks brackets, not policies.

/// Formats a policy. The error names the line that cannot be read.
pub(super) fn format(text: &str) -> Result<String, String> {
    let tokens = tokens(text)?;
    let lines = lines(&tokens)?;
    Ok(aligned(&lines))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Comment(String),
    Newline,
    Open(char),
    Close(char),
    Comma,
    Equals,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '\n' => (Some(Token::Newline), 1),
            '#' => comment(rest),
            '/' if rest.starts_with("//") => comment(rest),
            '/' if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or_else(|| format!("line {line}: the comment has no end"))? + 2;
                (Some(Token::Comment(slice(rest, end))), end)
            }
            '{' | '[' | '(' => (Some(Token::Open(first)), 1),
            '}' | ']' | ')' => (Some(Token::Close(first)), 1),
            ',' => (Some(Token::Comma), 1),
            '=' => (Some(Token::Equals), 1),
            '"' => {
                let end = string_end(rest).ok_or_else(|| format!("line {line}: the string has no end"))?;
                (Some(Token::Word(slice(rest, end))), end)
            }
            '<' if rest.starts_with("<<") => {
                let end =
                    heredoc_end(rest).ok_or_else(|| format!("line {line}: the text block has no end"))?;
                (Some(Token::Word(slice(rest, end))), end)
            }
            blank if blank.is_whitespace() => (None, blank.len_utf8()),
            _ => {
                let is_end = |c: char| c.is_whitespace() || "{}[](),=\"#".contains(c);
                let end = rest.find(is_end).unwrap_or(rest.len()).max(first.len_utf8());
                (Some(Token::Word(slice(rest, end))), end)
            }
        };
        out.extend(token);
        line += slice(rest, length).matches('\n').count();
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(out)
}

fn slice(text: &str, end: usize) -> String {
    text.get(..end).unwrap_or(text).to_owned()
}

fn comment(rest: &str) -> (Option<Token>, usize) {
    let end = rest.find('\n').unwrap_or(rest.len());
    (Some(Token::Comment(slice(rest, end).trim_end().to_owned())), end)
}

fn string_end(rest: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return Some(index + 1),
            '\n' => return None,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

fn heredoc_end(rest: &str) -> Option<usize> {
    let first = rest.lines().next()?;
    let mark = first.trim_start_matches('<').trim_start_matches('-').trim();
    let mut at = first.len() + 1;
    for line in rest.get(at..)?.lines() {
        if line.trim() == mark {
            return Some(at + line.len());
        }
        at += line.len() + 1;
    }
    None
}

/// A line of output.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// Nothing, between two groups.
    Blank,
    /// Words at a level.
    Text(usize, String),
    /// `name = value` at a level.
    Attribute(usize, String, String),
}

fn lines(tokens: &[Token]) -> Result<Vec<Line>, String> {
    let mut builder =
        Builder { lines: Vec::new(), current: String::new(), name: None, open: Vec::new(), newlines: 0 };
    let mut rest = tokens.iter().peekable();
    while let Some(token) = rest.next() {
        builder.newlines = if *token == Token::Newline { builder.newlines + 1 } else { 0 };
        match token {
            Token::Newline => builder.newline(),
            Token::Comment(text) => builder.comment(text, rest.peek().copied()),
            Token::Word(text) => builder.word(text),
            Token::Equals => builder.name = Some(std::mem::take(&mut builder.current)),
            Token::Comma => builder.comma(),
            Token::Open('{') => builder.open_block(),
            Token::Open(bracket) => builder.open_list(*bracket),
            Token::Close(bracket) => builder.close(*bracket)?,
        }
    }
    match builder.open.last() {
        Some(bracket) => Err(format!("{bracket} has no end")),
        None => {
            builder.end_line();
            Ok(builder.lines)
        }
    }
}

struct Builder {
    lines: Vec<Line>,
    /// The words of the line so far; after `=`, those of its value.
    current: String,
    /// What stands before `=`.
    name: Option<String>,
    open: Vec<char>,
    newlines: usize,
}

impl Builder {
    fn level(&self) -> usize {
        self.open.iter().filter(|bracket| **bracket == '{').count()
    }

    fn is_in_list(&self) -> bool {
        self.open.last().is_some_and(|bracket| *bracket != '{')
    }

    fn word(&mut self, text: &str) {
        // A second attribute on one line begins a line of its own.
        if !self.is_in_list() && self.name.is_some() && !self.current.is_empty() {
            self.end_line();
        }
        if !self.current.is_empty() && !self.current.ends_with(['[', '(']) {
            self.current.push(' ');
        }
        self.current.push_str(text);
    }

    fn comma(&mut self) {
        if self.is_in_list() {
            self.current.push(',');
        } else {
            self.end_line();
        }
    }

    fn newline(&mut self) {
        if self.is_in_list() {
            return;
        }
        self.end_line();
        let after_open = matches!(self.lines.last(), Some(Line::Text(_, text)) if text.ends_with('{'));
        if self.newlines > 1 && !after_open && !matches!(self.lines.last(), None | Some(Line::Blank)) {
            self.lines.push(Line::Blank);
        }
    }

    fn comment(&mut self, text: &str, next: Option<&Token>) {
        if self.is_in_list() {
            // A comment to the end of the line would swallow the rest of the list.
            let inner = text.trim_start_matches(['#', '/', '*']).trim_end_matches(['*', '/']).trim();
            self.word(&format!("/* {inner} */"));
            return;
        }
        let is_alone = self.current.is_empty() && self.name.is_none();
        if is_alone && next.is_none_or(|next| *next == Token::Newline) {
            self.lines.push(Line::Text(self.level(), text.to_owned()));
        } else {
            self.current = format!("{} {text}", self.current).trim_start().to_owned();
        }
    }

    fn open_block(&mut self) {
        if let Some(name) = self.name.take() {
            self.current = format!("{name} =");
        } else if self.is_in_list() {
            self.end_line();
        }
        let head = std::mem::take(&mut self.current);
        let text = if head.is_empty() { "{".to_owned() } else { format!("{head} {{") };
        self.lines.push(Line::Text(self.level(), text));
        self.open.push('{');
    }

    fn open_list(&mut self, bracket: char) {
        if !self.current.is_empty() && !self.current.ends_with(['[', '(']) {
            self.current.push(' ');
        }
        self.current.push(bracket);
        self.open.push(bracket);
    }

    fn close(&mut self, bracket: char) -> Result<(), String> {
        let matching = match bracket {
            '}' => '{',
            ']' => '[',
            _ => '(',
        };
        if self.open.last() != Some(&matching) {
            return Err(format!("{bracket} closes nothing"));
        }
        if bracket != '}' {
            while self.current.ends_with([',', ' ']) {
                self.current.pop();
            }
            self.current.push(bracket);
            self.open.pop();
            return Ok(());
        }
        self.end_line();
        if matches!(self.lines.last(), Some(Line::Blank)) {
            self.lines.pop();
        }
        self.open.pop();
        let level = self.level();
        match self.lines.last_mut() {
            Some(Line::Text(at, text)) if *at == level && text.ends_with('{') => text.push('}'),
            _ => self.lines.push(Line::Text(level, "}".to_owned())),
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let text = std::mem::take(&mut self.current);
        match self.name.take() {
            Some(name) => self.lines.push(Line::Attribute(self.level(), name, text)),
            None if text.is_empty() => {}
            None => self.lines.push(Line::Text(self.level(), text)),
        }
    }
}

/// Writes lines out; neighbouring attributes of one level share the column of their `=`.
fn aligned(lines: &[Line]) -> String {
    let width = |line: &Line| match line {
        Line::Attribute(level, name, value) if !value.contains('\n') => Some((*level, name.chars().count())),
        _ => None,
    };
    let mut out = String::new();
    for group in
        lines.chunk_by(|a, b| width(a).zip(width(b)).is_some_and(|((level, _), (other, _))| level == other))
    {
        let widest = group.iter().filter_map(width).map(|(_, width)| width).max().unwrap_or(0);
        for line in group {
            let text = match line {
                Line::Blank => String::new(),
                Line::Text(level, text) => format!("{}{text}", "  ".repeat(*level)),
                Line::Attribute(level, name, value) => {
                    format!("{}{name:widest$} = {value}", "  ".repeat(*level))
                }
            };
            out.push_str(&text);
            out.push('\n');
        }
    }
    let trimmed = out.trim_end().len();
    out.truncate(trimmed);
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, want: Expect) {
        let once = format(text).unwrap();
        want.assert_eq(&once);
        assert_eq!(format(&once).unwrap(), once, "a second run changes it");
    }

    #[test]
    fn opens_up_what_was_squeezed() {
        check(
            "path \"a\" {capabilities=[\"read\",\"list\"]}\npath \"b/*\" { capabilities = [ \"deny\" ] }",
            expect![[r#"
                path "a" {
                  capabilities = ["read", "list"]
                }
                path "b/*" {
                  capabilities = ["deny"]
                }
            "#]],
        );
    }

    #[test]
    fn keeps_comments_strings_and_groups() {
        check(
            "# who\n\n\n\npath \"x # {{identity.entity.id}}\" {\n\n\tcapabilities = [ \"read\", # for now\n \"list\", ]\n\tmin_wrapping_ttl=\"1s\" // short\n\n  allowed_parameters = {\n\"a\"=[]\n \"*\" = [\"b\"]\n}\n}\n",
            expect![[r#"
                # who

                path "x # {{identity.entity.id}}" {
                  capabilities     = ["read", /* for now */ "list"]
                  min_wrapping_ttl = "1s" // short

                  allowed_parameters = {
                    "a" = []
                    "*" = ["b"]
                  }
                }
            "#]],
        );
    }

    #[test]
    fn unreadable_files_are_left_alone() {
        assert_eq!(format("path \"a").unwrap_err(), "line 1: the string has no end");
        assert_eq!(format("path \"a\" {").unwrap_err(), "{ has no end");
        assert_eq!(format("}").unwrap_err(), "} closes nothing");
    }
}
