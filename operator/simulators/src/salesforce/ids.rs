//! Salesforce record ids: 15 case-sensitive characters, or 18 with a checksum that survives case-insensitive stores.
//!
//! Characters 16 to 18 each encode the capitals of five characters: bit `i` is set if the `i`-th of them is `A`..`Z`, and
//! the number picks from `A`..`Z0`..`5`. Pure functions only.

/// Digits of the running number; in the order of their bytes, so that later ids sort later.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CHECK: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// The instance part that all ids of this org share.
const POD: &str = "Hs0";

/// The 18-character id of the record with this running number and key prefix (`001` for an Account).
pub(super) fn make(prefix: &str, number: u64) -> String {
    let mut digits = [b'0'; 9];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[usize::try_from(rest % 62).unwrap_or_default()];
        rest /= 62;
    }
    let short = format!("{prefix}{POD}{}", String::from_utf8_lossy(&digits));
    let check = checksum(&short);
    short + &check
}

/// The checksum of a 15-character id.
fn checksum(short: &str) -> String {
    short
        .as_bytes()
        .chunks(5)
        .map(|chunk| {
            let bits = chunk.iter().enumerate().filter(|(_, byte)| byte.is_ascii_uppercase());
            let number = bits.fold(0_usize, |sum, (bit, _)| sum | 1 << bit);
            char::from(CHECK[number.min(31)])
        })
        .collect()
}

/// The 18-character form of a well-formed id of 15 or 18 characters; `None` for anything else.
pub(super) fn normal(id: &str) -> Option<String> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    match id.len() {
        15 => Some(format!("{id}{}", checksum(id))),
        18 if checksum(&id[..15]) == id[15..] => Some(id.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_pairs_of_short_and_long_ids_agree() {
        for (short, long) in [
            ("001A0000006Vm9r", "001A0000006Vm9rIAC"),
            ("0013000000IcoTK", "0013000000IcoTKAAZ"),
            ("00D000000000062", "00D000000000062EAA"),
        ] {
            assert_eq!(normal(short).as_deref(), Some(long));
            assert_eq!(normal(long).as_deref(), Some(long));
        }
    }

    #[test]
    fn a_wrong_checksum_length_or_character_is_refused() {
        for wrong in ["001A0000006Vm9rIAD", "001A0000006Vm9", "001A0000006Vm9r!AC", "", "001A0000006Vm9rIACX"] {
            assert_eq!(normal(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn ids_are_well_formed_and_sort_by_number(first in 0_u64..1_000_000_000, second in 0_u64..1_000_000_000) {
            let (one, two) = (make("001", first), make("001", second));
            prop_assert_eq!(normal(&one), Some(one.clone()));
            prop_assert_eq!(normal(&one[..15]), Some(one.clone()));
            prop_assert_eq!(first.cmp(&second), one.cmp(&two));
        }

        #[test]
        fn swapping_the_case_of_a_letter_breaks_the_checksum(number in 0_u64..u64::MAX, at in 0_usize..15) {
            let id = make("001", number);
            let swapped: String = id.chars().enumerate().map(|(index, letter)| match index == at {
                true if letter.is_ascii_uppercase() => letter.to_ascii_lowercase(),
                true => letter.to_ascii_uppercase(),
                false => letter,
            }).collect();
            prop_assert_eq!(normal(&swapped).is_some(), swapped == id);
        }
    }
}
