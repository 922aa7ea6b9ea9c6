//! "Did you mean": the closest of the names that would have been right.

/// The candidate that a person most likely meant, if one is close: equal but for case, or within a third of its letters.
#[must_use]
pub fn nearest<'a>(meant: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let meant = meant.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&meant, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).clamp(1, 4))
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or else the names that there are, or else `otherwise`.
#[must_use]
pub fn hint<'a>(meant: &str, candidates: impl IntoIterator<Item = &'a str> + Clone, otherwise: &str) -> String {
    /// So many names are still read; more are a wall.
    const LISTED: usize = 12;
    if let Some(name) = nearest(meant, candidates.clone()) {
        return format!("did you mean `{name}`?");
    }
    let names: Vec<&str> = candidates.into_iter().collect();
    if names.is_empty() || names.len() > LISTED { otherwise.to_owned() } else { format!("there are {}", listed(&names)) }
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        assert_eq!(nearest("Nmae", ["Name", "Phone"]), Some("Name"));
        assert_eq!(nearest("jwtbearer", ["JwtBearer", "TokenBased"]), Some("JwtBearer"));
        assert_eq!(nearest("Colour", ["Name", "Phone"]), None);
    }

    #[test]
    fn without_a_close_name_the_names_are_told() {
        assert_eq!(hint("x", ["crm", "erp"], "?"), "there are `crm` and `erp`");
        assert_eq!(hint("x", [], "add one"), "add one");
    }
}
