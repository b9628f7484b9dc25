//! CEL: `x-kubernetes-validations` of custom resources and `matchConditions` of webhooks.

use std::{
    collections::HashMap,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock, OnceLock},
};

use cel::{Context, Env, ExecutionError, Program, Value as Cel, extractors::This, objects::Key};
use serde_json::Value;

use super::structural::Structural;
use crate::object::text;

/// The longest expression that is compiled.
const SOURCE_BYTES_MAX: usize = 16 * 1024;

/// Property names that are words of the language; rules write them as `__name__`.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [cel::extensions::strings, cel::extensions::lists] {
        if let Err(error) = env.add_extension(extension) {
            tracing::error!(%error, "CEL extension cannot be used");
        }
    }
    Arc::new(env)
});

/// One validation rule. Compiled when it is first used.
#[derive(Debug)]
pub(crate) struct Rule {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    optional_old: bool,
}

/// One match condition of a webhook.
#[derive(Debug)]
pub(crate) struct Condition {
    name: String,
    expression: Expression,
}

struct Expression {
    source: String,
    program: OnceLock<Result<Program, String>>,
}

/// Compiles an expression and forgets it.
///
/// # Errors
/// The compiler's words.
pub(crate) fn compiles(source: &str) -> Result<(), String> {
    compile(source).map(drop)
}

fn compile(source: &str) -> Result<Program, String> {
    if source.trim().is_empty() || source.len() > SOURCE_BYTES_MAX {
        return Err("the expression is empty or too long".to_owned());
    }
    // The parser is generated code of another project; whatever it does, it must not take the server down.
    match catch_unwind(AssertUnwindSafe(|| ENVIRONMENT.compile(source))) {
        Ok(Ok(program)) => Ok(program),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the expression cannot be parsed".to_owned()),
    }
}

// === impl Expression ===

impl Expression {
    fn new(source: &str) -> Self {
        Self { source: source.to_owned(), program: OnceLock::new() }
    }

    fn evaluate(&self, variables: &[(&str, Cel)]) -> Result<Cel, String> {
        let program = self.program.get_or_init(|| compile(&self.source)).as_ref().map_err(Clone::clone)?;
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        add_functions(&mut context);
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        match catch_unwind(AssertUnwindSafe(|| program.execute(&context))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the expression cannot be evaluated".to_owned()),
        }
    }

    fn holds(&self, variables: &[(&str, Cel)]) -> Result<bool, String> {
        match self.evaluate(variables)? {
            Cel::Bool(holds) => Ok(holds),
            _ => Err("the result is not a boolean".to_owned()),
        }
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

/// What Kubernetes adds to the language and custom resources use.
fn add_functions(context: &mut Context<'_, '_>) {
    let added = [
        context
            .add_function("isIP", |text: Arc<String>| text.parse::<IpAddr>().is_ok())
            .map_err(|e| e.to_string()),
        context.add_function("isURL", |text: Arc<String>| scheme(&text).is_some()).map_err(|e| e.to_string()),
        context
            .add_function("url", |text: Arc<String>| match scheme(&text) {
                Some(_) => Ok(text),
                None => Err(ExecutionError::function_error("url", "not an URL")),
            })
            .map_err(|e| e.to_string()),
        context
            .add_function("getScheme", |This(text): This<Arc<String>>| {
                Arc::new(scheme(&text).unwrap_or_default().to_owned())
            })
            .map_err(|e| e.to_string()),
    ];
    for error in added.into_iter().filter_map(Result::err) {
        tracing::error!(error, "CEL function cannot be added");
    }
}

/// The scheme of an URL with a host, or of a rooted path (then empty), as Go's `ParseRequestURI` sees it.
fn scheme(text: &str) -> Option<&str> {
    if text.starts_with('/') {
        return Some("");
    }
    let (scheme, rest) = text.split_once("://")?;
    let mut characters = scheme.chars();
    let head = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let tail = characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let clean = !text.contains(|c: char| c.is_ascii_whitespace() || c.is_control());
    (head && tail && clean && !rest.is_empty()).then_some(scheme)
}

// === impl Rule ===

impl Rule {
    pub(crate) fn read(rule: &Value) -> Self {
        let expression = text(rule, "/messageExpression");
        Self {
            expression: Expression::new(text(rule, "/rule")),
            message: text(rule, "/message").trim().to_owned(),
            message_expression: (!expression.is_empty()).then(|| Expression::new(expression)),
            optional_old: rule["optionalOldSelf"] == true,
        }
    }

    /// Evaluates the rule.
    ///
    /// # Errors
    /// The rule's message when it does not hold.
    pub(crate) fn check(
        &self,
        schema: &Structural,
        value: &Value,
        old: Option<&Value>,
    ) -> Result<(), String> {
        let mut variables = vec![("self", convert(Some(schema), value))];
        if self.expression.source.contains("oldSelf") {
            match old {
                Some(old) => variables.push(("oldSelf", convert(Some(schema), old))),
                None if self.optional_old => variables.push(("oldSelf", Cel::Null)),
                // A rule about a change says nothing about a new value.
                None => return Ok(()),
            }
        }
        match self.expression.holds(&variables) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.failure(&variables)),
            Err(why) => Err(format!("rule evaluation error: {why}: {}", self.expression.source)),
        }
    }

    fn failure(&self, variables: &[(&str, Cel)]) -> String {
        if let Some(expression) = &self.message_expression
            && let Ok(Cel::String(message)) = expression.evaluate(variables)
            && !message.trim().is_empty()
        {
            return message.trim().to_owned();
        }
        if self.message.is_empty() {
            format!("failed rule: {}", self.expression.source.trim())
        } else {
            self.message.clone()
        }
    }
}

// === impl Condition ===

impl Condition {
    pub(crate) fn read(condition: &Value) -> Self {
        Self {
            name: text(condition, "/name").to_owned(),
            expression: Expression::new(text(condition, "/expression")),
        }
    }

    /// Whether the condition holds for a request.
    ///
    /// # Errors
    /// When it cannot be evaluated.
    pub(crate) fn holds(&self, object: &Value, old: Option<&Value>, request: &Value) -> Result<bool, String> {
        let variables = [
            ("object", convert(None, object)),
            ("oldObject", old.map_or(Cel::Null, |old| convert(None, old))),
            ("request", convert(None, request)),
        ];
        self.expression.holds(&variables).map_err(|why| format!("match condition {:?}: {why}", self.name))
    }
}

/// A JSON value as CEL sees it; properties of a schema are escaped where the language needs it.
fn convert(schema: Option<&Structural>, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Cel::Int(number),
            None => Cel::Float(number.as_f64().unwrap_or(0.0)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => {
            let below = schema.and_then(|schema| schema.items.as_deref());
            Cel::List(Arc::new(list.iter().map(|item| convert(below, item)).collect()))
        }
        Value::Object(map) => {
            let mut entries: HashMap<Key, Cel> = HashMap::with_capacity(map.len());
            for (name, child) in map {
                let below = schema.and_then(|schema| schema.property(name));
                let is_property = schema.is_none_or(|schema| schema.properties.contains_key(name.as_str()));
                let key = if is_property { escape(name) } else { name.clone() };
                entries.insert(Key::String(Arc::new(key)), convert(below, child));
            }
            Cel::Map(cel::objects::Map { map: Arc::new(entries) })
        }
    }
}

fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(rule: &str, value: &Value, old: Option<&Value>) -> Result<(), String> {
        let schema =
            Structural::compile(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"namespace": {"type": "string"}}}));
        Rule::read(&json!({"rule": rule, "message": "no"})).check(&schema, value, old)
    }

    #[test]
    fn rules_of_real_definitions() {
        let ok = |rule: &str, value: Value| assert_eq!(check(rule, &value, None), Ok(()), "{rule}");
        ok("!(has(self.percent) && has(self.fraction))", json!({"percent": 1}));
        ok("self.all(h, !isIP(h))", json!(["a.b"]));
        ok("duration(self) >= duration('1ms')", json!("2s"));
        ok("(has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0) <= 1", json!({"a": 1}));
        ok("isURL(self) ? (url(self).getScheme() in [\"\", \"http\", \"oci\"]) : false", json!("oci://x/y"));
        ok("self.all(key, 0 < int(key) && int(key) <= 65535)", json!({"80": {}}));
        ok("self.startsWith(\"unix://\") ? (self.substring(7, 8) == \"/\") : true", json!("unix:///x"));
        ok("self.all(key, key.split(\"/\")[0].size() < 253)", json!({"a/b": 1}));
        ok("self.__namespace__ == 'x'", json!({"namespace": "x"}));
        ok("self.exists_one(a, a.n == 1)", json!([{"n": 1}, {"n": 2}]));
        ok(r#"self.matches(r"""^[a-z]+$""")"#, json!("abc"));
        assert_eq!(check("self.n > 3", &json!({"n": 3}), None), Err("no".to_owned()));
    }

    #[test]
    fn old_values() {
        assert_eq!(check("self == oldSelf", &json!("a"), None), Ok(()));
        assert_eq!(check("self == oldSelf", &json!("a"), Some(&json!("a"))), Ok(()));
        assert!(check("self == oldSelf", &json!("a"), Some(&json!("b"))).is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        for source in ["", "self.", "((((", "1 +", "\u{0}"] {
            assert!(compiles(source).is_err(), "{source:?}");
        }
    }
}
