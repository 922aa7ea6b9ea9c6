//! Decimals as text. Money never passes through a binary float, so a decimal is parsed from its digits and kept as digits.
//!
//! The canonical form is plain notation without exponent, without leading zeros and without trailing zeros after the point:
//! `1.50`, `1.5` and `15e-1` are the same value and have the same text `1.5`, so equality of values is equality of texts.

use bigdecimal::{BigDecimal, Zero};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most digits a decimal may have, before and after the point together. Far above any vendor's (18 to 38), far below what would let a
/// short text such as `1e999999999` exhaust memory.
pub const MAX_DIGITS: i64 = 128;

/// A decimal number in canonical text form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Decimal(String);

/// Why a text is not a decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is no number.
    #[error("not a decimal number")]
    Malformed,
    /// The number has more than [`MAX_DIGITS`] digits.
    #[error("more than {MAX_DIGITS} digits")]
    TooLong,
}

impl Decimal {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, for arithmetic.
    #[must_use]
    pub fn to_big(&self) -> BigDecimal {
        BigDecimal::from_str(&self.0).unwrap_or_else(|_| BigDecimal::zero())
    }

    /// Digits after the point.
    #[must_use]
    pub fn scale(&self) -> usize {
        self.0.split_once('.').map_or(0, |(_, fraction)| fraction.len())
    }
}

impl From<BigDecimal> for Decimal {
    fn from(value: BigDecimal) -> Self {
        if value.is_zero() {
            return Self("0".into());
        }
        Self(value.normalized().to_plain_string())
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self(value.to_string())
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        // bigdecimal accepts underscores and a leading plus; numbers on the wire (RFC 8259) do not have the former.
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E')) {
            return Err(DecimalError::Malformed);
        }
        if i64::try_from(text.len()).map_or(true, |len| len > MAX_DIGITS + 16) {
            return Err(DecimalError::TooLong);
        }
        // Most decimals come as they should be, and need no arithmetic.
        if is_canonical(text) {
            return Ok(Self(text.to_owned()));
        }
        // And most of the others end in zeros after the point.
        if let Some((_, fraction)) = text.split_once('.')
            && !fraction.is_empty()
            && fraction.bytes().all(|byte| byte.is_ascii_digit())
        {
            let short = text.trim_end_matches('0');
            let short = short.strip_suffix('.').unwrap_or(short);
            if text.len() <= SHORT && is_canonical(short) {
                return Ok(Self(short.to_owned()));
            }
        }
        let value = BigDecimal::from_str(text).map_err(|_| DecimalError::Malformed)?;
        if value.is_zero() {
            return Ok(Self("0".into()));
        }
        let (digits, scale) = value.as_bigint_and_exponent();
        let count = i64::try_from(digits.to_string().trim_start_matches('-').len()).unwrap_or(i64::MAX);
        if scale.abs() > MAX_DIGITS || count.max(count.saturating_sub(scale)) > MAX_DIGITS {
            return Err(DecimalError::TooLong);
        }
        Ok(value.into())
    }
}

/// So many characters are within [`MAX_DIGITS`] in any case.
const SHORT: usize = 64;

/// Whether a text is a decimal in canonical form already. When in doubt it is not, and arithmetic decides.
#[must_use]
pub fn is_canonical(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= SHORT
        && all_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(|fraction| all_digits(fraction) && !fraction.ends_with('0'))
        && text != "-0"
}

impl TryFrom<String> for Decimal {
    type Error = DecimalError;

    fn try_from(text: String) -> Result<Self, DecimalError> {
        text.parse()
    }
}

impl From<Decimal> for String {
    fn from(value: Decimal) -> Self {
        value.0
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_values_have_equal_texts() {
        for (text, canonical) in [
            ("1.50", "1.5"),
            ("15e-1", "1.5"),
            ("0.0", "0"),
            ("-0", "0"),
            ("00012", "12"),
            ("1E3", "1000"),
            ("9007199254740993.01", "9007199254740993.01"),
            ("-12.3400", "-12.34"),
            ("+7", "7"),
        ] {
            assert_eq!(text.parse::<Decimal>().map(String::from).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_long_is_refused() {
        for text in ["", "abc", "1_000", "NaN", "Infinity", "1.2.3", "1.2.0", "1.234.000", "1.5.", "-1.5.00", "0x10", " 1"] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError::Malformed), "{text}");
        }
        assert_eq!("1e999999999".parse::<Decimal>(), Err(DecimalError::TooLong));
        assert_eq!("1e-999999999".parse::<Decimal>(), Err(DecimalError::TooLong));
        assert_eq!("9".repeat(200).parse::<Decimal>(), Err(DecimalError::TooLong));
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point(text in "-?[0-9]{1,30}(\\.[0-9]{1,20})?(e-?[0-9])?") {
            let once: Decimal = text.parse().unwrap();
            let twice: Decimal = once.as_str().parse().unwrap();
            prop_assert_eq!(&once, &twice);
            prop_assert_eq!(&once, &Decimal::from(BigDecimal::from_str(&text).unwrap()));
            // What is taken as it is, arithmetic would give as well.
            prop_assert!(!is_canonical(&text) || once.as_str() == text);
        }

        #[test]
        fn any_text_is_what_arithmetic_takes_it_for(text in "[-+0-9.]{1,8}") {
            prop_assert_eq!(text.parse::<Decimal>().ok(), BigDecimal::from_str(&text).map(Decimal::from).ok());
        }

        #[test]
        fn what_looks_canonical_is_what_arithmetic_gives(text in "[-0-9.]{1,8}") {
            if is_canonical(&text) {
                prop_assert_eq!(String::from(Decimal::from(BigDecimal::from_str(&text).unwrap())), text);
            }
        }
    }
}
