//! A manifest's options by their full names, with the lines that they are on.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::MAX_MANIFEST_BYTES;
use crate::ManifestError;

/// What stands for a place of a template.
pub(super) const PLACE: &str = "TEMPLATE";
/// Most options, list entries and tables together.
const MAX_OPTIONS: usize = 200_000;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    /// A float or a date, which no option is.
    Other,
    List(Vec<(usize, Value)>),
    Table(Vec<Option_>),
}

/// An option.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Option_ {
    /// The last part of its name.
    pub(super) name: String,
    /// Where it is.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) struct Document {
    /// What is at the top.
    pub(super) root: Vec<Option_>,
    /// Whether it has places to be filled in.
    pub(super) is_template: bool,
}

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST_BYTES {
            let problem = format!("more than {MAX_MANIFEST_BYTES} bytes");
            return Err(ManifestError::Syntax { line: 1, problem });
        }
        let (filled, is_template) = fill(text);
        let lines = Lines::new(&filled);
        let table = DeTable::parse(&filled).map_err(|error| ManifestError::Syntax {
            line: error.span().map_or(1, |span| lines.of(span.start)),
            problem: error.message().to_owned(),
        })?;
        let mut left = MAX_OPTIONS;
        let root = convert(table.get_ref(), &lines, &mut left).ok_or_else(|| ManifestError::Syntax {
            line: 1,
            problem: format!("more than {MAX_OPTIONS} values"),
        })?;
        Ok(Self { root, is_template })
    }

    /// The option of a full name, such as `sgx.debug`.
    pub(super) fn get(&self, path: &str) -> Option<&Option_> {
        let mut level = &self.root;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let found = level.iter().find(|o| o.name == part)?;
            if parts.peek().is_none() {
                return Some(found);
            }
            match &found.value {
                Value::Table(inner) => level = inner,
                _ => return None,
            }
        }
        None
    }

    /// The options below a full name.
    pub(super) fn table(&self, path: &str) -> &[Option_] {
        match self.get(path) {
            Some(Option_ { value: Value::Table(inner), .. }) => inner,
            _ => &[],
        }
    }

    /// The entries of a list, with their lines.
    pub(super) fn list(&self, path: &str) -> &[(usize, Value)] {
        match self.get(path) {
            Some(Option_ { value: Value::List(entries), .. }) => entries,
            _ => &[],
        }
    }

    /// A text, and its line.
    pub(super) fn text(&self, path: &str) -> Option<(usize, &str)> {
        match self.get(path) {
            Some(Option_ { value: Value::Text(text), line, .. }) => Some((*line, text)),
            _ => None,
        }
    }

    /// The line of an option that is `true`.
    pub(super) fn is_true(&self, path: &str) -> Option<usize> {
        self.get(path).filter(|o| o.value == Value::Flag(true)).map(|o| o.line)
    }
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A field of a table that is text.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        match self {
            Self::Table(inner) => inner.iter().find(|o| o.name == name)?.value.text(),
            _ => None,
        }
    }

    /// Whether it is known only when a template is filled in.
    pub(super) fn is_place(&self) -> bool {
        self.text().is_some_and(|text| text.contains(PLACE))
    }
}

fn convert(table: &DeTable<'_>, lines: &Lines, left: &mut usize) -> Option<Vec<Option_>> {
    let mut options = Vec::with_capacity(table.len());
    for (name, value) in table {
        *left = left.checked_sub(1)?;
        let line = lines.of(name.span().start);
        options.push(Option_ {
            name: name.get_ref().to_string(),
            line,
            value: convert_value(value, lines, left)?,
        });
    }
    Some(options)
}

fn convert_value(value: &Spanned<DeValue<'_>>, lines: &Lines, left: &mut usize) -> Option<Value> {
    Some(match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits: String = number.as_str().chars().filter(|c| *c != '_').collect();
            i64::from_str_radix(&digits, number.radix()).map_or(Value::Other, Value::Number)
        }
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Float(_) | DeValue::Datetime(_) => Value::Other,
        DeValue::Array(entries) => {
            let mut list = Vec::with_capacity(entries.len());
            for entry in entries {
                *left = left.checked_sub(1)?;
                list.push((lines.of(entry.span().start), convert_value(entry, lines, left)?));
            }
            Value::List(list)
        }
        DeValue::Table(inner) => Value::Table(convert(inner, lines, left)?),
    })
}

/// Line numbers of offsets.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(breaks).collect() }
    }

    fn of(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }
}

/// Fills the places of a Jinja template so that TOML is left, with as many lines: statements and comments vanish, and an
/// expression becomes a text or a part of one.
fn fill(text: &str) -> (String, bool) {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_template = false;
    let mut quote: Option<char> = None;
    while let Some(next) = rest.chars().next() {
        let ends = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")].into_iter().find(|(b, _)| rest.starts_with(b));
        let end = ends.and_then(|(begin, end)| Some((begin, rest[2..].find(end)? + 4)));
        // `{{` is no TOML outside of a text, but an empty table in a table might be `{ x = {}}`: only beginnings count.
        if let Some((begin, length)) = end {
            is_template = true;
            if begin == "{{" {
                let place = if quote.is_some() { PLACE.to_owned() } else { format!("\"{PLACE}\"") };
                filled.push_str(&place);
            }
            filled.extend(rest[..length].chars().filter(|c| *c == '\n'));
            rest = &rest[length..];
            continue;
        }
        match (next, quote) {
            ('#', None) => {
                // A comment, to the end of the line.
                let end = rest.find('\n').unwrap_or(rest.len());
                rest = &rest[end..];
                continue;
            }
            ('"' | '\'', None) => quote = Some(next),
            ('\\', Some('"')) => {
                filled.push(next);
                rest = &rest[1..];
                if let Some(escaped) = rest.chars().next() {
                    filled.push(escaped);
                    rest = &rest[escaped.len_utf8()..];
                }
                continue;
            }
            (c, Some(open)) if c == open => quote = None,
            ('\n', _) => quote = None,
            _ => {}
        }
        filled.push(next);
        rest = &rest[next.len_utf8()..];
    }
    // What is no template is read as it is.
    if is_template { (filled, true) } else { (text.to_owned(), false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_lines() {
        let document = Document::parse("a.b = 1\n\n[a.c]\nd = [\n  \"x\",\n  { e = true },\n]\n").unwrap();
        assert_eq!(document.get("a.b").map(|o| (o.line, &o.value)), Some((1, &Value::Number(1))));
        let list = document.list("a.c.d");
        assert_eq!(list.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 6]);
        assert!(document.get("a.b.c").is_none() && document.get("x").is_none());
        let error = Document::parse("a = 1\nb = = 2\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn templates_keep_their_lines() {
        let text = "x = \"{{ arch }}/y\" # {{ no }}\n{% if a\n %}\nz = {{ 'true' if b else 'false' }}\n{% endif %}\nw = 'a{{b}}'\n";
        let document = Document::parse(text).unwrap();
        assert!(document.is_template);
        assert_eq!(document.text("x"), Some((1, "TEMPLATE/y")));
        assert_eq!(document.text("z"), Some((4, "TEMPLATE")));
        assert_eq!(document.text("w"), Some((6, "aTEMPLATE")));
        assert!(!Document::parse("a = \"#\"\n").unwrap().is_template);
    }
}
