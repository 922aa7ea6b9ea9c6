//! Which functions an expression may call, and Fairlead's own ones for decimals.
//!
//! The list is an allow-list. A function is on it when the same arguments always give the same result (no clock, randomness, ids, log,
//! environment, file, network or secrets), when it cannot make much out of little (no `range`), and when it never deals in binary floats.
//! Casts are the strict ones, which fail on a value of another type instead of guessing.

use ::vrl::compiler::prelude::*;
use bigdecimal::num_bigint::{BigInt, BigUint, Sign};
use bigdecimal::{BigDecimal, RoundingMode};
use fairlead_model::Decimal;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Functions of VRL's library that an expression may call.
const ALLOWED: [&str; 70] = [
    // Text.
    "camelcase",
    "contains",
    "contains_all",
    "downcase",
    "ends_with",
    "find",
    "join",
    "kebabcase",
    "length",
    "match",
    "match_any",
    "parse_regex",
    "parse_regex_all",
    "pascalcase",
    "replace",
    "replace_with",
    "screamingsnakecase",
    "slice",
    "snakecase",
    "split",
    "starts_with",
    "strip_whitespace",
    "strlen",
    "truncate",
    "upcase",
    "format_int",
    "encode_percent",
    "decode_percent",
    "encode_base64",
    "decode_base64",
    "basename",
    "dirname",
    "parse_url",
    "parse_query_string",
    // Lists and objects.
    "append",
    "chunks",
    "compact",
    "filter",
    "flatten",
    "from_entries",
    "get",
    "includes",
    "is_empty",
    "keys",
    "map_keys",
    "map_values",
    "merge",
    "object_from_array",
    "pop",
    "push",
    "to_entries",
    "unflatten",
    "unique",
    "values",
    "zip",
    // Types.
    "array",
    "bool",
    "exists",
    "int",
    "is_array",
    "is_boolean",
    "is_integer",
    "is_null",
    "is_nullish",
    "is_object",
    "is_string",
    "object",
    "parse_int",
    "string",
    "to_string",
];
/// Time as a value, and checks.
const ALLOWED_TOO: [&str; 9] = [
    "parse_timestamp",
    "format_timestamp",
    "to_unix_timestamp",
    "from_unix_timestamp",
    "timestamp",
    "is_timestamp",
    "mod",
    "assert",
    "assert_eq",
];

/// The functions that expressions are compiled with.
pub(crate) static FUNCTIONS: LazyLock<Vec<Box<dyn Function>>> = LazyLock::new(|| {
    let allowed = |function: &dyn Function| ALLOWED.contains(&function.identifier()) || ALLOWED_TOO.contains(&function.identifier());
    let own = Operation::ALL.map(|operation| Box::new(DecimalFunction(operation)) as Box<dyn Function>);
    ::vrl::stdlib::all().into_iter().filter(|function| allowed(function.as_ref())).chain(own).collect()
});

/// Names of library functions that exist but may not be called.
pub(crate) static REFUSED: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| {
    let known: BTreeSet<&str> = FUNCTIONS.iter().map(|function| function.identifier()).collect();
    ::vrl::stdlib::all().iter().map(|function| function.identifier()).filter(|name| !known.contains(name)).collect()
});

/// What to use instead of a function that may not be called.
pub(crate) fn instead(name: &str) -> &'static str {
    match name {
        "to_float" | "float" | "parse_float" | "format_number" => "decimals are text: to_decimal!, decimal_round!",
        "round" | "ceil" | "floor" | "abs" => "decimals are text: decimal_round!",
        "for_each" => "map_values and filter give a value; decimal_sum! adds up",
        "to_int" => "parse_int!(..., 10) reads a text, int! insists on a whole number",
        "to_bool" => "use a value table, or compare with ==",
        "now" | "uuid_v4" | "uuid_v7" => "a mapping gives the same result whenever it runs",
        "set" | "remove" | "del" => "an expression makes one value and changes nothing",
        _ => "a mapping works on its record alone, and gives the same result whenever it runs",
    }
}

/// The most digits after the point that rounding and division may be asked for.
const MAX_SCALE: i64 = 64;

/// How a quotient or a decimal is rounded, by the word in an expression. The first is meant where none is named.
const ROUNDING: [(&str, RoundingMode); 7] = [
    ("half_up", RoundingMode::HalfUp),
    ("half_even", RoundingMode::HalfEven),
    ("half_down", RoundingMode::HalfDown),
    ("up", RoundingMode::Up),
    ("down", RoundingMode::Down),
    ("ceiling", RoundingMode::Ceiling),
    ("floor", RoundingMode::Floor),
];

/// One of Fairlead's own functions. They take decimals as text or whole numbers, and give decimals as canonical text.
#[derive(Debug, Clone, Copy)]
enum Operation {
    ToDecimal,
    Add,
    Sub,
    Mul,
    Div,
    Round,
    Compare,
    Sum,
}

impl Operation {
    const ALL: [Self; 8] = [Self::ToDecimal, Self::Add, Self::Sub, Self::Mul, Self::Div, Self::Round, Self::Compare, Self::Sum];
}

#[derive(Debug, Clone, Copy)]
struct DecimalFunction(Operation);

const NUMBER: u16 = kind::BYTES | kind::INTEGER;
const VALUE: Parameter = Parameter::required("value", NUMBER, "A decimal as text, or a whole number.");
const LIST: Parameter = Parameter::required("value", kind::ARRAY, "A list of decimals as text, or whole numbers.");
const OTHER: Parameter = Parameter::required("other", NUMBER, "A decimal as text, or a whole number.");
const SCALE: Parameter = Parameter::required("scale", kind::INTEGER, "Digits after the point, 0 to 64.");
const HOW: Parameter = Parameter::optional(
    "rounding",
    kind::BYTES,
    "half_up (when left out; half away from zero), half_even, half_down, up (away from zero), down (towards it), ceiling or floor.",
);

impl Function for DecimalFunction {
    fn identifier(&self) -> &'static str {
        match self.0 {
            Operation::ToDecimal => "to_decimal",
            Operation::Add => "decimal_add",
            Operation::Sub => "decimal_sub",
            Operation::Mul => "decimal_mul",
            Operation::Div => "decimal_div",
            Operation::Round => "decimal_round",
            Operation::Compare => "decimal_compare",
            Operation::Sum => "decimal_sum",
        }
    }

    fn usage(&self) -> &'static str {
        match self.0 {
            Operation::ToDecimal => "Reads a decimal and gives its canonical text.",
            Operation::Add => "The exact sum.",
            Operation::Sub => "The exact difference.",
            Operation::Mul => "The exact product.",
            Operation::Div => "The quotient, rounded to `scale` digits after the point.",
            Operation::Round => "The decimal rounded to `scale` digits after the point.",
            Operation::Sum => "The exact sum of a list of decimals; 0 for an empty one.",
            Operation::Compare => "-1, 0 or 1 as `value` is less than, equal to or more than `other`.",
        }
    }

    fn category(&self) -> &'static str {
        Category::Number.as_ref()
    }

    fn return_kind(&self) -> u16 {
        if matches!(self.0, Operation::Compare) { kind::INTEGER } else { kind::BYTES }
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn parameters(&self) -> &'static [Parameter] {
        match self.0 {
            Operation::ToDecimal => &[VALUE],
            Operation::Sum => &[LIST],
            Operation::Add | Operation::Sub | Operation::Mul | Operation::Compare => &[VALUE, OTHER],
            Operation::Div => &[VALUE, OTHER, SCALE, HOW],
            Operation::Round => &[VALUE, SCALE, HOW],
        }
    }

    fn compile(&self, state: &TypeState, _: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let words = ROUNDING.map(|(word, _)| Value::from(word));
        let rounding = arguments.optional_enum("rounding", &words, state)?;
        let mode = ROUNDING.iter().find(|(word, _)| rounding.as_ref() == Some(&Value::from(*word)));
        let call = DecimalCall {
            operation: self.0,
            value: arguments.required("value"),
            other: arguments.optional("other"),
            scale: arguments.optional("scale"),
            rounding: mode.map_or(RoundingMode::HalfUp, |(_, mode)| *mode),
        };
        call.check_constants(state)?;
        Ok(call.as_expr())
    }
}

#[derive(Debug, Clone)]
struct DecimalCall {
    operation: Operation,
    value: Box<dyn Expression>,
    other: Option<Box<dyn Expression>>,
    scale: Option<Box<dyn Expression>>,
    rounding: RoundingMode,
}

impl DecimalCall {
    /// What stands in the expression itself is judged before any record is: it would fail for each of them.
    fn check_constants(&self, state: &TypeState) -> Result<(), function::Error> {
        let constant = |expression: Option<&Box<dyn Expression>>| expression.and_then(|expression| expression.resolve_constant(state));
        let numbers = [("value", Some(&self.value)), ("other", self.other.as_ref())];
        for (keyword, value) in numbers.into_iter().filter_map(|(keyword, expression)| Some((keyword, constant(expression)?))) {
            let items = if let Value::Array(items) = &value { items.as_slice() } else { std::slice::from_ref(&value) };
            // Of another type than the parameter takes: the compiler says so.
            if items.iter().any(|item| (item.is_bytes() || item.is_integer()) && read(item).is_err()) {
                return Err(function::Error::InvalidArgument { keyword, value, error: "is no decimal" });
            }
        }
        if let Some(value) = constant(self.scale.as_ref())
            && value.as_integer().is_some_and(|scale| !(0..=MAX_SCALE).contains(&scale))
        {
            return Err(function::Error::InvalidArgument { keyword: "scale", value, error: "is not from 0 to 64" });
        }
        if let (Operation::Div, Some(value)) = (self.operation, constant(self.other.as_ref()))
            && read(&value).is_ok_and(|divisor| divisor.sign() == Sign::NoSign)
        {
            return Err(function::Error::InvalidArgument { keyword: "other", value, error: "division by zero" });
        }
        Ok(())
    }
}

impl FunctionExpression for DecimalCall {
    fn resolve(&self, ctx: &mut Context<'_>) -> Resolved {
        let value = self.value.resolve(ctx)?;
        let value = match self.operation {
            Operation::Sum => value.try_array()?.iter().try_fold(BigDecimal::default(), |sum, item| read(item).map(|item| sum + item))?,
            _ => read(&value)?,
        };
        let other = self.other.as_ref().map(|other| other.resolve(ctx).and_then(|other| read(&other))).transpose()?.unwrap_or_default();
        let scale = match self.scale.as_ref().map(|scale| scale.resolve(ctx)).transpose()? {
            Some(scale) => scale.try_integer()?,
            None => 0,
        };
        if !(0..=MAX_SCALE).contains(&scale) {
            return Err(format!("scale is from 0 to {MAX_SCALE}").into());
        }
        let result = match self.operation {
            Operation::ToDecimal | Operation::Sum => value,
            Operation::Add => value + other,
            Operation::Sub => value - other,
            Operation::Mul => value * other,
            Operation::Div => divide(&value, &other, scale, self.rounding).ok_or("division by zero")?,
            Operation::Round => value.with_scale_round(scale, self.rounding),
            Operation::Compare => {
                return Ok(Value::Integer(match value.cmp(&other) {
                    Ordering::Less => -1,
                    Ordering::Equal => 0,
                    Ordering::Greater => 1,
                }));
            }
        };
        // Through the model's own reading, which bounds the digits.
        let text: Decimal = result.to_plain_string().parse().map_err(|error| format!("the result has {error}"))?;
        Ok(Value::from(text.as_str()))
    }

    fn type_def(&self, _: &TypeState) -> TypeDef {
        let result = if matches!(self.operation, Operation::Compare) { TypeDef::integer() } else { TypeDef::bytes() };
        result.fallible()
    }
}

fn read(value: &Value) -> Result<BigDecimal, ExpressionError> {
    match value {
        Value::Integer(number) => Ok(BigDecimal::from(*number)),
        value if value.is_bytes() => {
            let text = value.try_bytes_utf8_lossy()?;
            text.parse::<Decimal>().map(|decimal| decimal.to_big()).map_err(|error| error.to_string().into())
        }
        other => Err(format!("expected a decimal as text or a whole number, got {}", other.kind_str()).into()),
    }
}

/// `a / b` rounded to `scale` digits after the point; exact integer arithmetic, no intermediate precision.
fn divide(a: &BigDecimal, b: &BigDecimal, scale: i64, rounding: RoundingMode) -> Option<BigDecimal> {
    let (a, a_scale) = a.as_bigint_and_exponent();
    let (b, b_scale) = b.as_bigint_and_exponent();
    if b.sign() == Sign::NoSign {
        return None;
    }
    let power = |exponent: i64| BigInt::from(10).pow(u32::try_from(exponent).unwrap_or(0));
    let shift = b_scale - a_scale + scale;
    let (numerator, denominator) = if shift >= 0 { (a * power(shift), b) } else { (a, b * power(-shift)) };
    let negative = (numerator.sign() == Sign::Minus) != (denominator.sign() == Sign::Minus);
    let (n, d) = (numerator.magnitude(), denominator.magnitude());
    let (quotient, rest) = (n / d, n % d);
    let exact = rest == BigUint::ZERO;
    let half = (rest * 2u32).cmp(d);
    let further = !exact
        && match rounding {
            RoundingMode::Up => true,
            RoundingMode::Down => false,
            RoundingMode::Ceiling => !negative,
            RoundingMode::Floor => negative,
            RoundingMode::HalfUp => half != Ordering::Less,
            RoundingMode::HalfDown => half == Ordering::Greater,
            RoundingMode::HalfEven => half == Ordering::Greater || half == Ordering::Equal && quotient.bit(0),
        };
    let rounded = BigInt::from(if further { quotient + 1u32 } else { quotient });
    Some(BigDecimal::new(if negative { -rounded } else { rounded }, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_name_exists_once() {
        let all: BTreeSet<&str> = ::vrl::stdlib::all().iter().map(|function| function.identifier()).collect();
        let listed: BTreeSet<&str> = ALLOWED.into_iter().chain(ALLOWED_TOO).collect();
        assert_eq!(listed.len(), ALLOWED.len() + ALLOWED_TOO.len());
        assert_eq!(listed.difference(&all).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    #[test]
    fn what_reaches_out_or_is_never_the_same_twice_is_refused() {
        for name in [
            "now",
            "uuid_v4",
            "random_int",
            "log",
            "get_env_var",
            "get_hostname",
            "http_request",
            "dns_lookup",
            "to_float",
            "range",
            "parse_json",
        ] {
            assert!(!FUNCTIONS.iter().any(|function| function.identifier() == name), "{name}");
        }
    }

    #[test]
    fn division_rounds_half_away_from_zero_at_any_size() {
        let divide = |a: &str, b: &str, scale| {
            divide(&a.parse().unwrap(), &b.parse().unwrap(), scale, RoundingMode::HalfUp).map(|result| Decimal::from(result).to_string())
        };
        assert_eq!(divide("1", "3", 4).as_deref(), Some("0.3333"));
        assert_eq!(divide("-1", "8", 2).as_deref(), Some("-0.13"));
        assert_eq!(divide("1", "8", 2).as_deref(), Some("0.13"));
        assert_eq!(divide("1e40", "0.0003", 0).as_deref(), Some("33333333333333333333333333333333333333333333"));
        assert_eq!(divide("1", "0.00", 2), None);
    }
}
