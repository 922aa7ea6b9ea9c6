//! Text from outside made fit for logs, events and status: control characters neutralised, markup defused, secrets taken out, length capped.

use crate::definition::template;
use crate::secret::SecretString;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The most characters of a vendor's own words that an error repeats.
pub(crate) const MAX_VENDOR_TEXT: usize = 300;

/// The most characters of a vendor's error code.
pub(crate) const MAX_CODE: usize = 80;

/// Cleans `text` for people. Control and invisible characters become spaces, angle brackets become harmless ones, runs of white space
/// become one space, and at most `limit` characters remain.
pub(crate) fn clean(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    let mut gap = false;
    for c in text.chars() {
        let c = match c {
            '<' => '‹',
            '>' => '›',
            c if c.is_control() || c.is_whitespace() || is_invisible(c) => {
                gap = !out.is_empty();
                continue;
            }
            c => c,
        };
        if count + 1 >= limit {
            out.push('…');
            return out;
        }
        if gap {
            out.push(' ');
            count += 1;
            gap = false;
        }
        out.push(c);
        count += 1;
    }
    out
}

/// Marks that change how text around them is shown without being seen: direction overrides, zero-width characters, tags.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// An error code as vendors write them: letters, digits and a few marks, nothing else.
pub(crate) fn code(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ')).take(MAX_CODE).collect()
}

/// Takes every one of `secrets` out of `text`, plain, percent-encoded and in Base64. Short values are left: taking out a two-letter user name
/// would mangle the sentence and hide nothing. To be called before a text is cut, or the beginning of a secret stays behind.
pub(crate) fn redact(text: &str, secrets: &[SecretString]) -> String {
    let values = secrets.iter().map(|secret| secret.expose().trim()).filter(|value| value.len() >= 6);
    let forms = values.flat_map(|value| [value.to_owned(), template::encode(value), STANDARD.encode(value)]).map(Zeroizing::new);
    let mut found: Vec<_> = forms.filter(|form| text.contains(form.as_str())).collect();
    // The longest first: a user's name in Base64 may begin the Base64 of the name and its password.
    found.sort_by_key(|form| std::cmp::Reverse(form.len()));
    found.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), "[redacted]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_codes_markup_and_newlines_are_neutralised() {
        assert_eq!(clean("a\u{1b}[31mred\u{1b}[0m\r\nINFO fake <b>x</b>\u{202e}\0 end", 300), "a [31mred [0m INFO fake ‹b›x‹/b› end");
        assert_eq!(clean("  \n\t ", 300), "");
        assert_eq!(clean(&"x".repeat(1000), 10), format!("{}…", "x".repeat(9)));
        assert_eq!(code("INVALID_<script>\nFIELD"), "INVALID_scriptFIELD");
    }

    #[test]
    fn a_secret_that_the_vendor_repeats_is_taken_out() {
        let secrets = [SecretString::new("s3cr3t-value"), SecretString::new("ab")];
        assert_eq!(redact("bad token s3cr3t-value, about", &secrets), "bad token [redacted], about");
        let secrets = [SecretString::new("s3cr3t/valüe")];
        assert_eq!(redact("a s3cr3t%2Fval%C3%BCe b czNjcjN0L3ZhbMO8ZQ== c", &secrets), "a [redacted] b [redacted] c");
        let pair = STANDARD.encode("alice1:wonderland");
        let secrets = [SecretString::new("alice1"), SecretString::new("wonderland"), SecretString::new(pair.as_str())];
        assert_eq!(redact(&format!("Basic {pair} is wrong"), &secrets), "Basic [redacted] is wrong");
    }
}
