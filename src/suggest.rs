//! Suggestions: "did you mean …?" for a misspelt name.
//!
//! This module owns the measure of the distance between two names, so that all messages suggest names by the same rule. A name is suggested
//! only if it is close, and the suggestion does not depend on the order of the list.

/// Returns the name in `known` that is closest to `name`, if one is close enough.
///
/// Names are close if they differ only in case or in `-` and `_`, differ by few edits (one for every three letters; a swap of two
/// neighbouring letters is one edit), one is a prefix of the other, or one has all words of the other, in any order.
///
/// ```
/// use freetumor::suggest::nearest;
/// assert_eq!(nearest("qualty-test", ["intensity", "quality-test"]), Some("quality-test"));
/// assert_eq!(nearest("spacing", ["spacing_mm", "shape"]), Some("spacing_mm"));
/// assert_eq!(nearest("bladder", ["gallbladder", "urinary_bladder"]), Some("urinary_bladder"));
/// assert_eq!(nearest("generator", ["intensity", "quality-test"]), None);
/// ```
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let folded = fold(name);
    known
        .into_iter()
        .filter_map(|candidate| Some((cost(&folded, &fold(candidate))?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns a hint such as ``did you mean `quality-test`?``, or `None` if no known name is similar.
pub fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(name, known).map(|nearest| format!("did you mean `{nearest}`?"))
}

fn fold(name: &str) -> String {
    name.replace('-', "_").to_ascii_lowercase()
}

/// Returns the distance of two folded names in sixths of an edit; `None` if it is too large for a suggestion.
fn cost(name: &str, candidate: &str) -> Option<usize> {
    let edits = strsim::osa_distance(name, candidate);
    let (name_letters, candidate_letters) = (name.chars().count(), candidate.chars().count());
    let (fewer, more) = (name_letters.min(candidate_letters), name_letters.max(candidate_letters));
    if edits <= more / 3 {
        return Some(6 * edits);
    }
    // A missing unit (`spacing` for `spacing_mm`) is many edits, but the meaning is obvious.
    let is_prefix = candidate.starts_with(name) || name.starts_with(candidate);
    let is_part = is_prefix || has_words_of(candidate, name) || has_words_of(name, candidate);
    (fewer >= 3 && is_part).then_some(6 * (fewer / 3) + 1 + more - fewer + usize::from(!is_prefix))
}

/// Returns whether a folded name has every word of another one.
fn has_words_of(name: &str, part: &str) -> bool {
    part.split('_').all(|word| !word.is_empty() && name.split('_').any(|other| other == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_returns_close_names_only() {
        assert_eq!(nearest("Delta-HU", ["delta_hu"]), Some("delta_hu"));
        assert_eq!(nearest("ratio", ["root", "ring_mm"]), None);
        assert_eq!(nearest("itnensity", ["intensity", "density"]), Some("intensity"));
        assert_eq!(nearest("found", ["dice", "found_fraction", "held_out_found_fraction"]), Some("found_fraction"));
        assert_eq!(nearest("", ["a"]), None);
    }

    #[test]
    fn nearest_returns_closest_of_several_names() {
        assert_eq!(nearest("inputs", ["input", "outputs", "inputs_"]), Some("input"));
        assert_eq!(nearest("hu_in", ["hu_ring", "hu_inside"]), Some("hu_inside"));
    }

    #[test]
    fn nearest_finds_words_in_any_order() {
        assert_eq!(nearest("left_kidney", ["kidney_left", "kidney_right"]), Some("kidney_left"));
        assert_eq!(nearest("fraction", ["dice", "found_fraction"]), Some("found_fraction"));
        assert_eq!(nearest("mm", ["ring_mm"]), None, "too short");
        assert_eq!(nearest("_", ["ring_mm"]), None);
    }

    #[test]
    fn swap_of_neighbouring_letters_is_one_edit() {
        // Two edits would be too many for three letters.
        assert_eq!(nearest("abc", ["bac"]), Some("bac"));
        assert_eq!(nearest("abc", ["cba"]), None);
    }
}
