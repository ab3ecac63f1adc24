//! Suggestions: "did you mean …?" for a misspelt name.
//!
//! This room owns the one measure of how close two names are, so that every message of the program suggests by the same rule. It returns
//! nothing rather than a name that is not close, and the same name for the same list, whatever its order.

/// The word of `known` that a reader most likely meant by `word`, if any is near enough.
///
/// Near are words that differ in capitals or in `-` and `_` only, that differ by few edits (one for every three
/// letters; swapping two neighbours is one edit), or of which one continues the other.
///
/// ```
/// use freetumor::suggest::nearest;
/// assert_eq!(nearest("qualty-test", ["intensity", "quality-test"]), Some("quality-test"));
/// assert_eq!(nearest("spacing", ["spacing_mm", "shape"]), Some("spacing_mm"));
/// assert_eq!(nearest("generator", ["intensity", "quality-test"]), None);
/// ```
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let folded = fold(word);
    known.into_iter().filter_map(|candidate| Some((cost(&folded, &fold(candidate))?, candidate))).min().map(|it| it.1)
}

/// A sentence for a hint: ``did you mean `quality-test`?``.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(word, known).map(|it| format!("did you mean `{it}`?"))
}

fn fold(word: &str) -> String {
    word.replace('-', "_").to_ascii_lowercase()
}

/// How far apart two folded words are, in sixths of an edit; `None` where the distance is too large for a suggestion.
fn cost(word: &str, candidate: &str) -> Option<usize> {
    let edits = strsim::osa_distance(word, candidate);
    let (word_letters, candidate_letters) = (word.chars().count(), candidate.chars().count());
    let (fewer, more) = (word_letters.min(candidate_letters), word_letters.max(candidate_letters));
    if edits <= more / 3 {
        return Some(6 * edits);
    }
    // A forgotten unit (`spacing` for `spacing_mm`) is many edits and yet an obvious meaning.
    let continues = candidate.starts_with(word) || word.starts_with(candidate);
    (fewer >= 3 && continues).then_some(6 * (fewer / 3) + 1 + more - fewer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("Delta-HU", ["delta_hu"]), Some("delta_hu"));
        assert_eq!(nearest("ratio", ["root", "ring_mm"]), None);
        assert_eq!(nearest("itnensity", ["intensity", "density"]), Some("intensity"));
        assert_eq!(nearest("found", ["dice", "found_fraction", "held_out_found_fraction"]), Some("found_fraction"));
        assert_eq!(nearest("", ["a"]), None);
    }

    #[test]
    fn the_nearest_of_several_wins() {
        assert_eq!(nearest("inputs", ["input", "outputs", "inputs_"]), Some("input"));
        assert_eq!(nearest("hu_in", ["hu_ring", "hu_inside"]), Some("hu_inside"));
    }

    #[test]
    fn swapped_neighbours_count_as_one_edit() {
        // Two edits would be too many for three letters.
        assert_eq!(nearest("abc", ["bac"]), Some("bac"));
        assert_eq!(nearest("abc", ["cba"]), None);
    }
}
