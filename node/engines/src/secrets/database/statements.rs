//! Statements that operators wrote, with `{{name}}`, `{{password}}` and so on filled in.
//!
//! **Invariant:** a value stays inside the quotation its place stands in. Each place is looked at in its context: within
//! quotes the value is escaped by their rules, outside of them it must be a plain word, inside a `$$` body it may hold no
//! `$`, in a comment nothing is filled in. Values are filled in once: what looks like a place inside a value is none.

use arca_engine_api::EngineError;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

/// Most bytes of one statement.
const STATEMENT_MAX: usize = 256 * 1024;
/// Deepest nesting of `$tag$` bodies.
const BODIES_MAX: usize = 8;

/// How a database reads text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// `\` escapes within quotes.
    pub(super) has_backslashes: bool,
    /// `$tag$ … $tag$` and `E'…'`, as PostgreSQL; else `` ` `` and `#` comments, as MySQL.
    pub(super) is_postgres: bool,
}

/// A place's name and what is filled in there.
pub(super) type Values<'a> = [(&'static str, &'a str)];

/// The single statements, filled in.
///
/// # Errors
/// When a quotation or comment does not end, or a value cannot stand where it would.
pub(super) fn prepare(
    dialect: Dialect,
    statements: &[String],
    values: &Values<'_>,
) -> Result<Vec<Zeroizing<String>>, EngineError> {
    for (name, value) in values {
        if value.chars().any(char::is_control) {
            return Err(EngineError::Invalid(format!("the {name} holds a control character")));
        }
    }
    let mut queries = Vec::new();
    for statement in statements {
        if statement.len() > STATEMENT_MAX {
            return Err(EngineError::Invalid(format!("a statement is longer than {STATEMENT_MAX} bytes")));
        }
        for text in unpack(statement) {
            Splitter::new(dialect, &text, values).run(&mut queries)?;
        }
    }
    Ok(queries)
}

/// Whether there is nothing to run in them: blanks and comments would count as done without having done anything.
pub(super) fn are_blank(dialect: Dialect, statements: &[String]) -> bool {
    prepare(dialect, statements, &[]).is_ok_and(|queries| queries.is_empty())
}

/// What a statement stands for: itself, a JSON list of statements, or base64 of one of these.
fn unpack(statement: &str) -> Vec<String> {
    let trimmed = statement.trim();
    let decoded = BASE64_STANDARD.decode(trimmed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // A bare word may be base64 by accident; no statement decodes to text with blanks in it.
    let text =
        decoded.filter(|text| text.contains(char::is_whitespace)).unwrap_or_else(|| trimmed.to_owned());
    serde_json::from_str::<Vec<String>>(&text).unwrap_or_else(|_| vec![text])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    Bare,
    BlockComment(usize),
    LineComment,
    Quote { mark: char, has_backslashes: bool },
}

/// Walks over one text.
struct Splitter<'a> {
    dialect: Dialect,
    text: &'a str,
    values: &'a Values<'a>,
    at: usize,
    context: Context,
    /// The marks of the `$tag$` bodies one is in.
    bodies: Vec<&'a str>,
    query: Zeroizing<String>,
    has_code: bool,
    /// Behind an `E'…'` with only blanks and line comments since: whether there was the end of a line. Then a quotation
    /// that begins here is one with the other, and escapes as it does.
    continues: Option<bool>,
}

impl<'a> Splitter<'a> {
    fn new(dialect: Dialect, text: &'a str, values: &'a Values<'a>) -> Self {
        // Enough for everything, so that it never moves and leaves a copy of a password behind.
        let longest = values.iter().map(|(_, value)| value.len() * 2).max().unwrap_or_default();
        let room = text.len() + longest * text.matches("{{").count();
        let query = Zeroizing::new(String::with_capacity(room));
        Self {
            dialect,
            text,
            values,
            at: 0,
            context: Context::Bare,
            bodies: Vec::new(),
            query,
            has_code: false,
            continues: None,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn run(mut self, queries: &mut Vec<Zeroizing<String>>) -> Result<(), EngineError> {
        while let Some(letter) = self.rest().chars().next() {
            match self.context {
                Context::Bare => self.bare(letter, queries)?,
                Context::Quote { mark, has_backslashes } => self.quoted(letter, mark, has_backslashes)?,
                Context::LineComment => {
                    if letter == '\n' || (letter == '\r' && self.dialect.is_postgres) {
                        self.context = Context::Bare;
                        self.continues = self.continues.map(|_| true);
                    }
                    self.take(letter.len_utf8());
                }
                Context::BlockComment(depth) => self.comment(letter, depth),
            }
        }
        if !matches!(self.context, Context::Bare | Context::LineComment) || !self.bodies.is_empty() {
            return Err(EngineError::invalid("a quotation or a comment in a statement does not end"));
        }
        self.end(queries);
        Ok(())
    }

    /// Copies so many bytes.
    fn take(&mut self, count: usize) {
        let taken = self.rest().get(..count).unwrap_or_default();
        self.has_code |= matches!(self.context, Context::Bare | Context::Quote { .. })
            && taken.contains(|letter: char| !letter.is_whitespace());
        self.query.push_str(taken);
        self.at += count;
    }

    fn end(&mut self, queries: &mut Vec<Zeroizing<String>>) {
        if std::mem::take(&mut self.has_code) {
            queries.push(Zeroizing::new(self.query.trim().to_owned()));
        }
        // The room is used again, and wiped as a whole at last.
        self.query.clear();
    }

    fn bare(&mut self, letter: char, queries: &mut Vec<Zeroizing<String>>) -> Result<(), EngineError> {
        let rest = self.rest();
        let is_postgres = self.dialect.is_postgres;
        if self.fill_in()? {
            self.continues = None;
            return Ok(());
        }
        let continues = self.continues == Some(true);
        if letter == '\n' || letter == '\r' {
            self.continues = self.continues.map(|_| true);
        } else if !letter.is_whitespace() && !rest.starts_with("--") {
            self.continues = None;
        }
        match letter {
            ';' if self.bodies.is_empty() => {
                self.end(queries);
                self.at += 1;
                return Ok(());
            }
            '\'' | '"' => {
                let is_escaping = if is_postgres {
                    letter == '\'' && (self.dialect.has_backslashes || continues || self.follows_e())
                } else {
                    self.dialect.has_backslashes
                };
                self.context = Context::Quote { mark: letter, has_backslashes: is_escaping };
            }
            '`' if !is_postgres => self.context = Context::Quote { mark: '`', has_backslashes: false },
            '#' if !is_postgres => self.context = Context::LineComment,
            '-' if rest
                .strip_prefix("--")
                .is_some_and(|next| is_postgres || next.chars().next().is_none_or(char::is_whitespace)) =>
            {
                self.context = Context::LineComment;
            }
            // `/*!` of MySQL is code.
            '/' if rest.starts_with("/*")
                && (is_postgres || !(rest.starts_with("/*!") || rest.starts_with("/*M!"))) =>
            {
                self.context = Context::BlockComment(0);
                return Ok(());
            }
            '$' if is_postgres => return self.dollar(),
            _ => {}
        }
        self.take(letter.len_utf8());
        Ok(())
    }

    /// Whether the quote that comes is that of `E'…'`.
    fn follows_e(&self) -> bool {
        let mut before = self.text.get(..self.at).unwrap_or_default().chars().rev();
        matches!(before.next(), Some('e' | 'E')) && !before.next().is_some_and(is_word)
    }

    fn dollar(&mut self) -> Result<(), EngineError> {
        let rest = self.rest();
        let follows_word = self.text.get(..self.at).unwrap_or_default().ends_with(is_word);
        if let Some(mark) = self.bodies.last().copied().filter(|mark| rest.starts_with(mark)) {
            self.bodies.pop();
            self.take(mark.len());
        } else if let Some(mark) = dollar_mark(rest).filter(|_| !follows_word) {
            if self.bodies.len() >= BODIES_MAX {
                return Err(EngineError::invalid("quotations in a statement nest too deeply"));
            }
            self.bodies.push(mark);
            self.take(mark.len());
        } else {
            self.take(1);
        }
        Ok(())
    }

    fn quoted(&mut self, letter: char, mark: char, has_backslashes: bool) -> Result<(), EngineError> {
        let rest = self.rest();
        if let Some(body) = self.bodies.last().copied().filter(|body| rest.starts_with(body)) {
            // The end of a body ends what is inside, quotes that were only text too.
            self.bodies.pop();
            self.context = Context::Bare;
            self.take(body.len());
            return Ok(());
        }
        if self.fill_in()? {
            return Ok(());
        }
        let next = rest.get(letter.len_utf8()..).and_then(|rest| rest.chars().next());
        if letter == mark && next != Some(mark) {
            self.take(letter.len_utf8());
            self.context = Context::Bare;
            self.continues = (self.dialect.is_postgres && mark == '\'' && has_backslashes).then_some(false);
            return Ok(());
        }
        let is_pair = letter == mark || (letter == '\\' && has_backslashes);
        let pair = if is_pair { next.map_or(0, char::len_utf8) } else { 0 };
        self.take(letter.len_utf8() + pair);
        Ok(())
    }

    fn comment(&mut self, letter: char, depth: usize) {
        let rest = self.rest();
        if rest.starts_with("*/") {
            self.take(2);
            self.context = if depth > 1 { Context::BlockComment(depth - 1) } else { Context::Bare };
        } else if rest.starts_with("/*") && (depth == 0 || self.dialect.is_postgres) {
            self.take(2);
            self.context = Context::BlockComment(depth + 1);
        } else {
            self.take(letter.len_utf8());
        }
    }

    /// Fills a value in, if there is a place for one here.
    fn fill_in(&mut self) -> Result<bool, EngineError> {
        let Some(inner) = self.rest().strip_prefix("{{") else { return Ok(false) };
        let found = self
            .values
            .iter()
            .find(|(name, _)| inner.strip_prefix(name).is_some_and(|rest| rest.starts_with("}}")));
        let Some((name, value)) = found else { return Ok(false) };
        let length = name.len() + 4;
        let refuse = |why: &str| Err(EngineError::Invalid(format!("the {name} cannot be filled in: {why}")));
        if !self.bodies.is_empty() && value.contains('$') {
            return refuse("it holds a $ and would stand inside a $$ body");
        }
        match self.context {
            Context::Quote { mark, has_backslashes } => {
                for letter in value.chars() {
                    if letter == mark || (letter == '\\' && has_backslashes) {
                        self.query.push(letter);
                    }
                    self.query.push(letter);
                }
            }
            _ if value.chars().all(is_word) || self.fills_body(length) => self.query.push_str(value),
            _ => return refuse("it is no plain word; put the place into quotes"),
        }
        self.has_code = true;
        self.at += length;
        Ok(true)
    }

    /// Whether the place is all that its `$tag$` body holds.
    fn fills_body(&self, length: usize) -> bool {
        let (before, after) = (self.text.get(..self.at), self.rest().get(length..));
        self.bodies.last().is_some_and(|mark| {
            before.is_some_and(|before| before.ends_with(mark))
                && after.is_some_and(|after| after.starts_with(mark))
        })
    }
}

/// What a value may look like where [`prepare`] has filled it in: as it is, and as each quotation escapes it.
pub(super) fn shapes(value: &str) -> Vec<String> {
    let doubled = |text: &str, mark: char| text.replace(mark, &format!("{mark}{mark}"));
    let backslashed = doubled(value, '\\');
    let mut shapes = vec![value.to_owned(), backslashed.clone()];
    for mark in ['\'', '"', '`'] {
        shapes.extend([doubled(value, mark), doubled(&backslashed, mark)]);
    }
    shapes.sort();
    shapes.dedup();
    shapes
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The `$tag$` that `text` begins with.
fn dollar_mark(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('$')?;
    let length = inner.find('$')?;
    let tag = inner.get(..length)?;
    let is_tag = tag.chars().all(is_word) && !tag.starts_with(|letter: char| letter.is_ascii_digit());
    if is_tag { text.get(..length + 2) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POSTGRES: Dialect = Dialect { has_backslashes: false, is_postgres: true };
    const MYSQL: Dialect = Dialect { has_backslashes: true, is_postgres: false };

    fn with(dialect: Dialect, text: &str, value: &str) -> Result<Vec<String>, String> {
        let queries = prepare(dialect, &[text.to_owned()], &[("password", value), ("name", value)]);
        queries
            .map(|queries| queries.iter().map(|query| query.to_string()).collect())
            .map_err(|err| err.to_string())
    }

    #[track_caller]
    fn check(dialect: Dialect, text: &str, value: &str, want: &[&str]) {
        let want: Vec<String> = want.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(with(dialect, text, value), Ok(want), "text {text:?}, value {value:?}");
    }

    #[track_caller]
    fn check_refused(dialect: Dialect, text: &str, value: &str) {
        let refused = with(dialect, text, value);
        assert!(refused.is_err(), "text {text:?}, value {value:?}: {refused:?}");
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes() {
        check(POSTGRES, "A; B;;\n; C", "", &["A", "B", "C"]);
        check(
            POSTGRES,
            "A ';' \";\" -- ; x\n; /* ; /* ; */ */ B",
            "",
            &["A ';' \";\" -- ; x", "/* ; /* ; */ */ B"],
        );
        check(POSTGRES, "DO $$ BEGIN x; y; END $$; Z", "", &["DO $$ BEGIN x; y; END $$", "Z"]);
        check(POSTGRES, "DO $a$ x; $b$ ;' $b$ ; $a$; Z", "", &["DO $a$ x; $b$ ;' $b$ ; $a$", "Z"]);
        check(POSTGRES, "SELECT $$it's$$; Z", "", &["SELECT $$it's$$", "Z"]);
        check(POSTGRES, "SELECT E'\\';' ; Z", "", &["SELECT E'\\';'", "Z"]);
        check(POSTGRES, "SELECT '\\' ; Z", "", &["SELECT '\\'", "Z"]);
        check(MYSQL, "SELECT '\\';' ; `a;b` # ; c\n; Z", "", &["SELECT '\\';'", "`a;b` # ; c", "Z"]);
        check(MYSQL, "SELECT 1--1; /*!40101 SET a=1; */ Z", "", &["SELECT 1--1", "/*!40101 SET a=1", "*/ Z"]);
        check(POSTGRES, "-- nothing\n;", "", &[]);
        for dialect in [POSTGRES, MYSQL] {
            assert!(are_blank(
                dialect,
                &[String::new(), " ; ".to_owned(), "-- x".to_owned(), "/* x */".to_owned()]
            ));
            assert!(!are_blank(dialect, &["x".to_owned()]) && !are_blank(dialect, &["'".to_owned()]));
        }
    }

    #[test]
    fn statements_come_packed_too() {
        check(POSTGRES, &BASE64_STANDARD.encode("A b; C"), "", &["A b", "C"]);
        check(POSTGRES, r#"["A", "B; C"]"#, "", &["A", "B", "C"]);
        check(POSTGRES, "DROPUSER", "", &["DROPUSER"]);
    }

    #[test]
    fn values_stay_inside_their_quotes() {
        check(POSTGRES, "P '{{password}}'", "a'b\\c\"d", &["P 'a''b\\c\"d'"]);
        check(POSTGRES, "P E'{{password}}'", "a'b\\c", &["P E'a''b\\\\c'"]);
        check(POSTGRES, "R \"{{name}}\"", "a\"b; DROP", &["R \"a\"\"b; DROP\""]);
        check(MYSQL, "P '{{password}}'", "a'b\\c\"d", &["P 'a''b\\\\c\"d'"]);
        check(MYSQL, "P \"{{password}}\"", "a'b\"", &["P \"a'b\"\"\""]);
        check(MYSQL, "P `{{name}}`", "a`b", &["P `a``b`"]);
        check(POSTGRES, "P '{{password}}' '{{name}}'", "{{name}}", &["P '{{name}}' '{{name}}'"]);
        check(POSTGRES, "P $${{password}}$$", "a-b'c", &["P $$a-b'c$$"]);
        check(POSTGRES, "P {{name}} {{other}}", "abc_1", &["P abc_1 {{other}}"]);
        check(POSTGRES, "-- {{name}}\nX", "a\"b", &["-- {{name}}\nX"]);
    }

    /// PostgreSQL takes quotations that only the end of a line parts for one, which escapes as its first part does.
    #[test]
    fn a_quotation_that_goes_on_in_the_next_line_escapes_as_it_began() {
        let value = "a\\";
        for (between, is_one) in [
            ("\n", true),
            (" \r\n\t", true),
            (" -- it's a note\n", true),
            ("\n-- {{name}}\n ", true),
            (" ", false),
            (" /* \n */ ", false),
            ("\n, ", false),
        ] {
            let want = if is_one { "a\\\\" } else { "a\\" };
            let text = format!("P E'x'{between}'{{{{password}}}}'; Z");
            check(POSTGRES, &text, value, &[&format!("P E'x'{between}'{want}'"), "Z"]);
        }
        check(POSTGRES, "P 'x'\n'{{password}}'", value, &["P 'x'\n'a\\'"]);
    }

    /// Splitting takes no longer for many statements than for one of the same length.
    #[test]
    fn many_statements_are_split_in_no_more_room_than_they_need() {
        let text = "a;".repeat(STATEMENT_MAX / 2);
        let queries = prepare(POSTGRES, &[text], &[("password", "x")]).unwrap();
        assert_eq!(queries.len(), STATEMENT_MAX / 2);
        assert!(queries.iter().all(|query| query.capacity() <= 8));
    }

    #[test]
    fn values_that_would_leave_their_place_are_refused() {
        check_refused(POSTGRES, "P {{password}}", "a b");
        check_refused(POSTGRES, "P {{password}}", "a-b");
        check_refused(POSTGRES, "P $${{password}}$$", "a$");
        check_refused(POSTGRES, "DO $$ x {{password}} $$", "a;b");
        check_refused(POSTGRES, "P '{{password}}'", "a\nb");
        check_refused(POSTGRES, "P '{{password}}'", "a\0b");
        check_refused(POSTGRES, "P '", "");
        check_refused(POSTGRES, "P $$", "");
        check_refused(POSTGRES, "P /*", "");
        let nested: String = (0..100).map(|at| format!("$a{at}$ ")).collect();
        check_refused(POSTGRES, &nested, "");
    }

    #[test]
    fn a_refusal_never_quotes() {
        for text in ["P {{password}}", "P $${{password}}$$", "P '{{password}}"] {
            let refused = with(POSTGRES, text, "$canary !").unwrap_err();
            assert!(!refused.contains("canary"), "{refused}");
        }
    }

    proptest! {
        /// Whatever the value, what is read back out of the quotes is the value, and nothing follows.
        #[test]
        fn any_value_reads_back(value in "[ -~éß]{0,40}") {
            let made = with(POSTGRES, "A '{{password}}'", &value).unwrap();
            prop_assert_eq!(made.len(), 1);
            let inner = made[0].strip_prefix("A '").unwrap().strip_suffix('\'').unwrap().to_owned();
            prop_assert_eq!(inner.replace("''", "'"), value.clone());
            prop_assert_eq!(inner.matches('\'').count(), value.matches('\'').count() * 2);
            let made = with(MYSQL, "A '{{password}}'", &value).unwrap();
            prop_assert_eq!(made.len(), 1);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[-'\"`$#/*;{}\\\\a-c\n é]{0,60}") {
            for dialect in [POSTGRES, MYSQL] {
                let _outcome = with(dialect, &text, "a'b");
            }
        }
    }
}
