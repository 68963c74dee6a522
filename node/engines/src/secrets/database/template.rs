//! Username templates: text with actions in `{{ … }}`, the part of Go's template language that usernames need. A
//! template is read whole when it is configured, so what it cannot do is said then, by place and never by text.
//!
//! Read next: [`super::functions`] for what may be called, [`super::usernames`] for what may come out.

use arca_engine_api::{EngineError, Entropy, UnixMillis};

use super::functions::{Function, check_length};

/// Longest template, in bytes.
const TEMPLATE_MAX: usize = 4_096;
/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 16;

/// What a template is about.
pub(super) struct Facts<'a> {
    /// Who asks, as people read it.
    pub(super) display_name: &'a str,
    /// For which role.
    pub(super) role_name: &'a str,
    pub(super) now: UnixMillis,
    pub(super) entropy: &'a dyn Entropy,
}

/// A template, read.
#[derive(Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Action(Pipeline),
}

/// Calls, each of which gets what the one before it gave as its last argument.
#[derive(Debug)]
struct Pipeline(Vec<Command>);

#[derive(Debug)]
enum Command {
    Call(Function, Vec<Operand>),
    Value(Operand),
}

#[derive(Debug)]
enum Operand {
    Call(Function),
    DisplayName,
    Group(Pipeline),
    Number(i64),
    RoleName,
    Text(String),
}

/// What an operand stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(i64),
    Text(String),
}

impl Value {
    /// As it shows.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        if text.len() > TEMPLATE_MAX {
            return Err(EngineError::Invalid(format!("the template is longer than {TEMPLATE_MAX} bytes")));
        }
        let mut parts = Vec::new();
        let (mut rest, mut trims) = (text, false);
        while let Some((before, after)) = rest.split_once("{{") {
            let at = text.len() - after.len();
            let (after, trims_left) = after.strip_prefix("- ").map_or((after, false), |after| (after, true));
            let before = if trims { before.trim_start() } else { before };
            parts.push(Part::Text(if trims_left { before.trim_end() } else { before }.to_owned()));
            let end = end_of_action(after).ok_or_else(|| wrong(at, "unclosed action"))?;
            let (action, tail) = after.split_at(end);
            let (action, trims_right) =
                action.strip_suffix(" -").map_or((action, false), |action| (action, true));
            if !action.trim_start().starts_with("/*") {
                parts.push(Part::Action(Reader::read(action, at)?));
            }
            (rest, trims) = (tail.get(2..).unwrap_or_default(), trims_right);
        }
        parts.push(Part::Text(if trims { rest.trim_start() } else { rest }.to_owned()));
        Ok(Self(parts))
    }

    /// The text it makes.
    ///
    /// # Errors
    /// When a function cannot do with what it gets, or randomness fails.
    pub(super) fn render(&self, facts: &Facts<'_>) -> Result<String, EngineError> {
        let mut made = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => made.push_str(text),
                Part::Action(pipeline) => made.push_str(&pipeline.value(facts)?.into_text()),
            }
            check_length(made.len())?;
        }
        Ok(made)
    }
}

impl Pipeline {
    fn value(&self, facts: &Facts<'_>) -> Result<Value, EngineError> {
        let mut piped: Option<Value> = None;
        for command in &self.0 {
            piped = Some(match command {
                Command::Value(operand) => operand.value(facts)?,
                Command::Call(function, operands) => {
                    let mut arguments =
                        operands.iter().map(|operand| operand.value(facts)).collect::<Result<Vec<_>, _>>()?;
                    arguments.extend(piped);
                    function.call(arguments, facts)?
                }
            });
        }
        piped.ok_or_else(|| EngineError::Bug("an empty pipeline".to_owned()))
    }
}

impl Operand {
    fn value(&self, facts: &Facts<'_>) -> Result<Value, EngineError> {
        Ok(match self {
            Self::Call(function) => function.call(Vec::new(), facts)?,
            Self::DisplayName => Value::Text(facts.display_name.to_owned()),
            Self::Group(pipeline) => pipeline.value(facts)?,
            Self::Number(number) => Value::Number(*number),
            Self::RoleName => Value::Text(facts.role_name.to_owned()),
            Self::Text(text) => Value::Text(text.clone()),
        })
    }
}

/// What is wrong with a template.
fn wrong(at: usize, what: &str) -> EngineError {
    EngineError::Invalid(format!("unable to parse template: at byte {at}: {what}"))
}

/// Where the action ends, quoted text not being looked into.
fn end_of_action(text: &str) -> Option<usize> {
    let mut quote: Option<char> = None;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some('"') if letter == '\\' => is_escaped = true,
            Some(open) if open == letter => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '`') => quote = Some(letter),
            None if text.get(at..)?.starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// Reads one action.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Where the action begins in the template.
    start: usize,
}

impl Reader<'_> {
    fn read(text: &str, start: usize) -> Result<Pipeline, EngineError> {
        let mut reader = Reader { text, at: 0, start };
        let pipeline = reader.pipeline(0)?;
        reader.skip_blanks();
        match reader.peek() {
            None => Ok(pipeline),
            Some(_) => Err(reader.wrong("unexpected character")),
        }
    }

    fn wrong(&self, what: &str) -> EngineError {
        wrong(self.start + self.at, what)
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn skip_blanks(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.find(|letter| !wanted(letter)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, EngineError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("parentheses nest too deeply"));
        }
        let mut commands = Vec::new();
        loop {
            let command = self.command(depth, !commands.is_empty())?;
            commands.push(command);
            self.skip_blanks();
            if self.peek() != Some('|') {
                return Ok(Pipeline(commands));
            }
            self.at += 1;
        }
    }

    /// One command; what is piped into it counts as an argument.
    fn command(&mut self, depth: usize, is_piped: bool) -> Result<Command, EngineError> {
        let mut operands = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                None | Some('|' | ')') => break,
                Some(_) => operands.push(self.operand(depth)?),
            }
        }
        let mut operands = operands.into_iter();
        match operands.next() {
            None => Err(self.wrong("missing value")),
            Some(Operand::Call(function)) => {
                let arguments: Vec<_> = operands.collect();
                let count = arguments.len() + usize::from(is_piped);
                if function.takes(count) {
                    Ok(Command::Call(function, arguments))
                } else {
                    Err(self.wrong("wrong number of arguments for a function"))
                }
            }
            Some(value) if operands.len() == 0 && !is_piped => Ok(Command::Value(value)),
            Some(_) => Err(self.wrong("arguments for what is no function")),
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, EngineError> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let pipeline = self.pipeline(depth + 1)?;
                if self.peek() != Some(')') {
                    return Err(self.wrong("unclosed parenthesis"));
                }
                self.at += 1;
                Ok(Operand::Group(pipeline))
            }
            Some('"') => self.quoted().map(Operand::Text),
            Some('`') => {
                self.at += 1;
                let text = self.take_while(|letter| letter != '`').to_owned();
                self.at += 1;
                Ok(Operand::Text(text))
            }
            Some('.') => {
                self.at += 1;
                match self.take_while(is_word) {
                    "DisplayName" => Ok(Operand::DisplayName),
                    "RoleName" => Ok(Operand::RoleName),
                    _ => {
                        Err(self.wrong("there is no such field: .DisplayName and .RoleName are all there is"))
                    }
                }
            }
            Some('0'..='9' | '-') => {
                let number = self.take_while(|letter| letter == '-' || is_word(letter)).parse();
                number.map(Operand::Number).map_err(|_| self.wrong("bad number"))
            }
            Some(letter) if is_word(letter) => {
                let function = Function::named(self.take_while(is_word));
                function.map(Operand::Call).ok_or_else(|| {
                    self.wrong(&format!("function not defined; there are {}", Function::all()))
                })
            }
            _ => Err(self.wrong("unexpected character")),
        }
    }

    /// Text in double quotes; its end is known to be there.
    fn quoted(&mut self) -> Result<String, EngineError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|letter| !matches!(letter, '"' | '\\')));
            let letter = self.peek();
            self.at += 1;
            if letter != Some('\\') {
                return Ok(text);
            }
            let escaped = match self.peek() {
                Some(letter @ ('"' | '\\')) => letter,
                Some('n') => '\n',
                Some('t') => '\t',
                _ => return Err(self.wrong("unknown escape")),
            };
            text.push(escaped);
            self.at += 1;
        }
    }
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::database::tests::Sevens;

    fn render(text: &str) -> Result<String, EngineError> {
        Template::parse(text)?.render(&Facts {
            display_name: "token-Jane.Doe",
            role_name: "reader",
            now: UnixMillis(1_795_698_152_123),
            entropy: &Sevens,
        })
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(render(text).map_err(|err| err.to_string()), Ok(want.to_owned()), "template {text:?}");
    }

    #[track_caller]
    fn check_refused(text: &str, want: &str) {
        let refused = render(text).unwrap_err().to_string();
        assert!(refused.contains(want), "template {text:?}: {refused}");
    }

    #[test]
    fn the_documented_functions_work() {
        check("plain", "plain");
        check("a{{.RoleName}}b", "areaderb");
        check("{{ .DisplayName | truncate 8 }}", "token-Ja");
        check("{{truncate 8 .DisplayName}}", "token-Ja");
        check("{{.DisplayName | uppercase | replace \"-\" `_`}}", "TOKEN_JANE.DOE");
        check("{{.DisplayName | lowercase}}", "token-jane.doe");
        check("{{.DisplayName | truncate_sha256 10}}", "toceed5f11");
        check("{{random 5}}", "77777");
        check("{{unix_time}}/{{unix_time_millis}}", "1795698152/1795698152123");
        check("{{timestamp \"2006-01-02T15:04:05Z07:00\"}}", "2026-11-26T13:02:32Z");
        check("{{uuid}}", "07070707-0707-0707-0707-070707070707");
        check("{{\"hi\" | base64}} {{\"aGk=\" | decode_base64}}", "aGk= hi");
        check("{{\"hi\" | hex}} {{\"6869\" | decode_hex}}", "6869 hi");
        check("{{\"\" | sha256 | truncate 8}}", "e3b0c442");
        check("{{printf \"v-%s-%d%%\" .RoleName 7}}", "v-reader-7%");
        check("a {{- \" \" -}} b", "a b");
        check("{{/* a note */}}x", "x");
    }

    #[test]
    fn nested_pipelines_work() {
        check(
            r#"{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}"#,
            "v-token-Ja-reader-77777777777777777777-1795698152",
        );
    }

    #[test]
    fn the_rest_is_refused_with_a_place() {
        check_refused("{{foo}}", "at byte 5: function not defined; there are base64");
        check_refused("{{.Foo}}", "no such field");
        check_refused("{{", "unclosed action");
        check_refused("{{}}", "missing value");
        check_refused("{{if true}}x{{end}}", "function not defined");
        check_refused("{{(random 5}}", "unclosed parenthesis");
        check_refused("{{random}}", "number of arguments");
        check_refused("{{.RoleName | .RoleName}}", "no function");
        check_refused("{{truncate 0 .RoleName}}", "max length must be > 0");
        check_refused("{{truncate_sha256 8 .RoleName}}", "max length must be > 8");
        check_refused("{{random 100000}}", "random");
        check_refused("{{printf \"%x\" 1}}", "printf");
        check_refused(&"(".repeat(5_000), "longer than");
        check_refused(&format!("{{{{{}", "(".repeat(50)), "unclosed action");
        check_refused(&format!("{{{{{}}}}}", "(".repeat(50)), "too deeply");
    }

    /// A hundred calls, each of which doubles what it gets, would take all memory there is.
    #[test]
    fn text_does_not_grow_without_limit() {
        let doubling = [
            " | replace \"x\" \"xx\"".repeat(100),
            " | base64".repeat(100),
            " | hex".repeat(100),
            " | replace \"\" \"xxxxxxxx\"".repeat(100),
        ];
        for pipeline in doubling {
            check_refused(&format!("{{{{\"xxxxxxxx\"{pipeline} | truncate 8}}}}"), "too long");
        }
        check_refused(&"{{random 256}}".repeat(17), "too long");
        check("{{printf \"%s\" (random 5) | replace \"7\" \"ab\" | truncate 3}}", "aba");
    }

    #[test]
    fn a_refusal_never_quotes() {
        for text in
            ["{{canary}}", "{{.canary}}", "{{\"canary\\x\"}}", "{{9canary}}", "{{\"canary\" | decode_hex}}"]
        {
            let refused = render(text).unwrap_err().to_string();
            assert!(!refused.contains("canary"), "{refused}");
        }
    }
}
