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

fn fold(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// How far apart two folded words are, in sixths of an edit; `None` where too far to be meant.
fn cost(word: &[char], candidate: &[char]) -> Option<usize> {
    let edits = distance(word, candidate);
    if edits <= word.len().max(candidate.len()) / 3 {
        return Some(6 * edits);
    }
    let (short, long) = if word.len() < candidate.len() { (word, candidate) } else { (candidate, word) };
    // A forgotten unit (`spacing` for `spacing_mm`) is many edits and yet an obvious meaning.
    (short.len() >= 3 && long.starts_with(short)).then_some(6 * (short.len() / 3) + 1 + long.len() - short.len())
}

/// Edits between two words: insertions, deletions, substitutions, swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let plain = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    plain.min(rows[i - 2][j - 2] + 1)
                } else {
                    plain
                }
            };
        }
    }
    rows[a.len()][b.len()]
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
    fn distances_count_swaps_once() {
        let chars = |word: &str| word.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("ab"), &chars("ba")), 1);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
    }
}
