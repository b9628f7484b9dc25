//! From text to [`Node`]s: a scanner and a recursive descent, both bounded.

use super::{Attribute, BYTES_MAX, Comparison, DEPTH_MAX, Fact, NODES_MAX, Node, TextTest};
use http::HeaderName;

/// Bytes of a compiled regular expression.
const REGEX_BYTES_MAX: usize = 1 << 18;
/// Operators, longer ones first.
const OPERATORS: [&str; 23] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "?", ":", "(", ")", "[", "]", ",", ".", "+", "-", "*",
    "/", "%", "{",
];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Operator(&'static str),
    Word(String),
    Text(String),
    Int(i64),
    Double(f64),
}

/// The expression of a text, or why it is none.
pub(super) fn parse(source: &str) -> Result<Node, String> {
    if source.len() > BYTES_MAX {
        return Err(format!("must not be longer than {BYTES_MAX} bytes"));
    }
    let mut parser = Parser { tokens: scan(source)?, at: 0, nodes: 0, depth: 0 };
    let node = parser.conditional()?;
    match parser.tokens.get(parser.at) {
        None => Ok(node),
        Some(token) => Err(format!("unexpected {token:?}")),
    }
}

fn scan(source: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let taken = if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            tokens.push(number(&rest[..end])?);
            end
        } else if first == '\'' || first == '"' {
            let (text, end) = quoted(rest, first)?;
            tokens.push(Token::Text(text));
            end
        } else {
            let operator = OPERATORS.iter().find(|one| rest.starts_with(**one));
            let operator =
                operator.ok_or_else(|| format!("unexpected character `{}`", first.escape_debug()))?;
            tokens.push(Token::Operator(operator));
            operator.len()
        };
        rest = rest[taken..].trim_start();
    }
    Ok(tokens)
}

fn number(text: &str) -> Result<Token, String> {
    let wrong = || format!("`{text}` is not a number");
    if text.contains('.') {
        return text.parse().map(Token::Double).map_err(|_| wrong());
    }
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).map(Token::Int).map_err(|_| wrong()),
        None => text.trim_end_matches(['u', 'U']).parse().map(Token::Int).map_err(|_| wrong()),
    }
}

/// A text between quotes, and the bytes it takes.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(plain @ ('\\' | '\'' | '"' | '`' | '?')) => text.push(plain),
                _ => return Err("an escape that is not known".to_owned()),
            },
            end if end == quote => return Ok((text, at + 1)),
            other => text.push(other),
        }
    }
    Err("a text that does not end".to_owned())
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    nodes: usize,
    depth: usize,
}

type Parsed = Result<Node, String>;

impl Parser {
    fn take(&mut self, operator: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Operator(known)) if *known == operator);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, operator: &str) -> Result<(), String> {
        if self.take(operator) { Ok(()) } else { Err(format!("`{operator}` is missing")) }
    }

    fn word(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.tokens.get(self.at) else { return None };
        self.at += 1;
        Some(word.clone())
    }

    /// Counts a part, so that evaluation is bounded too.
    fn node(&mut self, node: Node) -> Parsed {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            Err(format!("must not have more than {NODES_MAX} parts"))
        } else {
            Ok(node)
        }
    }

    fn conditional(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("must not nest deeper than {DEPTH_MAX}"));
        }
        let condition = self.or()?;
        let node = if self.take("?") {
            let then = self.conditional()?;
            self.expect(":")?;
            let other = self.conditional()?;
            self.node(Node::Conditional(Box::new([condition, then, other])))?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        while self.take("||") {
            let right = self.and()?;
            left = self.node(Node::Or(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.relation()?;
        while self.take("&&") {
            let right = self.relation()?;
            left = self.node(Node::And(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn relation(&mut self) -> Parsed {
        let left = self.sum()?;
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        if let Some((_, how)) = comparisons.into_iter().find(|(operator, _)| self.take(operator)) {
            let right = self.sum()?;
            return self.node(Node::Compare(how, Box::new(left), Box::new(right)));
        }
        if self.tokens.get(self.at) == Some(&Token::Word("in".to_owned())) {
            self.at += 1;
            return self.membership(left);
        }
        Ok(left)
    }

    fn membership(&mut self, left: Node) -> Parsed {
        if let (Node::Text(name), Some(side)) = (&left, self.headers_here()) {
            self.at += 3;
            return header(side, name).and_then(|attribute| self.node(Node::Has(attribute)));
        }
        let right = self.sum()?;
        self.node(Node::In(Box::new(left), Box::new(right)))
    }

    /// Whether `request.headers` or `response.headers` comes next, as a whole.
    fn headers_here(&self) -> Option<&'static str> {
        let word = |offset: usize| match self.tokens.get(self.at + offset) {
            Some(Token::Word(word)) => Some(word.as_str()),
            _ => None,
        };
        let dot = self.tokens.get(self.at + 1) == Some(&Token::Operator("."));
        let whole = self.tokens.get(self.at + 3) != Some(&Token::Operator("["));
        match (word(0), dot && whole, word(2)) {
            (Some("request"), true, Some("headers")) => Some("request"),
            (Some("response"), true, Some("headers")) => Some("response"),
            _ => None,
        }
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        while let Some(operator) = ['+', '-'].into_iter().find(|one| self.take(&one.to_string())) {
            let right = self.product()?;
            left = self.node(Node::Arithmetic(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        while let Some(operator) = ['*', '/', '%'].into_iter().find(|one| self.take(&one.to_string())) {
            let right = self.unary()?;
            left = self.node(Node::Arithmetic(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let sign = ["!", "-"].into_iter().find(|sign| self.take(sign));
        let Some(sign) = sign else { return self.member() };
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("must not nest deeper than {DEPTH_MAX}"));
        }
        let inner = Box::new(self.unary()?);
        self.depth -= 1;
        self.node(if sign == "!" { Node::Not(inner) } else { Node::Negative(inner) })
    }

    fn member(&mut self) -> Parsed {
        let mut node = self.primary()?;
        while self.take(".") {
            let name = self.word().ok_or("a name is missing after `.`")?;
            self.expect("(")?;
            node = self.method(node, &name)?;
        }
        Ok(node)
    }

    fn method(&mut self, target: Node, name: &str) -> Parsed {
        let test = match name {
            "startsWith" => Some(TextTest::StartsWith),
            "endsWith" => Some(TextTest::EndsWith),
            "contains" => Some(TextTest::Contains),
            _ => None,
        };
        if let Some(test) = test {
            let argument = self.conditional()?;
            self.expect(")")?;
            return self.node(Node::Test(test, Box::new(target), Box::new(argument)));
        }
        match name {
            "size" => {
                self.expect(")")?;
                self.node(Node::Size(Box::new(target)))
            }
            "matches" => {
                let Node::Text(pattern) = self.conditional()? else {
                    return Err("`matches` wants a constant text".to_owned());
                };
                self.expect(")")?;
                let regex = regex::RegexBuilder::new(&pattern).size_limit(REGEX_BYTES_MAX).build();
                let regex =
                    regex.map_err(|_| format!("`{pattern}` is not a regular expression, or too large"))?;
                self.node(Node::Matches(Box::new(target), Box::new(regex)))
            }
            other => Err(format!("function `{other}` is not known")),
        }
    }

    fn primary(&mut self) -> Parsed {
        let Some(token) = self.tokens.get(self.at).cloned() else {
            return Err("it ends too early".to_owned());
        };
        self.at += 1;
        match token {
            Token::Int(value) => self.node(Node::Int(value)),
            Token::Double(value) => self.node(Node::Double(value)),
            Token::Text(text) => self.node(Node::Text(text.into())),
            Token::Operator("(") => {
                let inner = self.conditional()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Operator("[") => self.list(),
            Token::Word(word) => self.named(&word),
            Token::Operator(other) => Err(format!("unexpected `{other}`")),
        }
    }

    fn list(&mut self) -> Parsed {
        let mut items = Vec::new();
        while !self.take("]") {
            items.push(self.conditional()?);
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        self.node(Node::List(items))
    }

    fn named(&mut self, word: &str) -> Parsed {
        match word {
            "true" | "false" => return self.node(Node::Bool(word == "true")),
            "null" => return self.node(Node::Null),
            _ => {}
        }
        if !self.take("(") {
            let attribute = self.attribute(word)?;
            return self.node(Node::Attribute(attribute));
        }
        let argument = self.conditional()?;
        self.expect(")")?;
        let node = match (word, argument) {
            ("has", Node::Attribute(attribute)) => Node::Has(attribute),
            ("has", _) => return Err("`has` wants an attribute".to_owned()),
            ("size", argument) => Node::Size(Box::new(argument)),
            ("string", argument) => Node::String(Box::new(argument)),
            ("int", argument) => Node::ToInt(Box::new(argument)),
            ("duration", Node::Text(text)) => {
                let duration =
                    base_types::duration::parse(&text).map_err(|_| format!("`{text}` is not a duration"))?;
                Node::Duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
            }
            (other, _) => return Err(format!("function `{other}` is not known")),
        };
        self.node(node)
    }

    fn attribute(&mut self, root: &str) -> Result<Attribute, String> {
        self.expect(".").map_err(|_| format!("attribute `{root}` is not known"))?;
        let field = self.word().ok_or("a name is missing after `.`")?;
        if field == "headers" && matches!(root, "request" | "response") {
            let name = if self.take("[") {
                let Some(Token::Text(name)) = self.tokens.get(self.at).cloned() else {
                    return Err("a header's name must be a constant text".to_owned());
                };
                self.at += 1;
                self.expect("]")?;
                name
            } else {
                self.expect(".")?;
                self.word().ok_or("a header's name is missing")?
            };
            return header(root, &name);
        }
        let whole = format!("{root}.{field}");
        Fact::named(&whole).map(Attribute::Fact).ok_or_else(|| format!("attribute `{whole}` is not known"))
    }
}

fn header(side: &str, name: &str) -> Result<Attribute, String> {
    let known = match (side, name) {
        ("request", ":method") => Some(Fact::RequestMethod),
        ("request", ":path") => Some(Fact::RequestPath),
        ("request", ":authority" | "host") => Some(Fact::RequestHost),
        ("request", ":scheme") => Some(Fact::RequestScheme),
        ("response", ":status") => Some(Fact::ResponseCode),
        _ => None,
    };
    if let Some(fact) = known {
        return Ok(Attribute::Fact(fact));
    }
    let name = HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a header name"))?;
    Ok(if side == "request" { Attribute::RequestHeader(name) } else { Attribute::ResponseHeader(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_parsed_and_bounded() {
        for good in [
            "response.code >= 400",
            "response.code >= 400 && !(request.url_path.startsWith('/health') || request.method == \"OPTIONS\")",
            "'x-debug' in request.headers ? true : request.headers['x-a'].matches('^b+$')",
            "request.duration > duration('500ms') || size(request.path) % 2 == 0",
            "response.code in [500, 503] && has(request.headers['user-agent'])",
            "connection.mtls && -1 < int(request.headers.level)",
        ] {
            parse(good).unwrap_or_else(|reason| panic!("{good}: {reason}"));
        }
        let (deep, signs) = (format!("{}1{}", "(".repeat(40), ")".repeat(40)), "!".repeat(2000));
        let wide = format!("1{}", "+1".repeat(NODES_MAX));
        let long = format!("'{}'", "a".repeat(BYTES_MAX));
        for (bad, reason) in [
            ("", "ends too early"),
            ("response.code >", "ends too early"),
            ("response.nothing == 1", "`response.nothing` is not known"),
            ("filter_state.x", "is not known"),
            ("request.path.shout()", "`shout`"),
            ("request.path.matches(request.host)", "constant"),
            ("request.path.matches('(')", "regular expression"),
            ("request.headers['a b'] == ''", "header name"),
            ("'open", "does not end"),
            ("1 2", "unexpected"),
            ("response.code == 99999999999999999999", "not a number"),
            ("a{", "is not known"),
            (&deep, "deeper"),
            (&signs, "deeper"),
            (&wide, "parts"),
            (&long, "longer"),
        ] {
            let found = parse(bad).unwrap_err();
            assert!(found.contains(reason), "{}: {found}", &bad[..bad.len().min(40)]);
        }
    }
}
