//! A program's last words, fit for a table: short, printable, without paths.

use std::path::Path;

/// Lines that are kept, and letters of them.
const LINES: usize = 3;
const LETTERS: usize = 400;
/// Letters of an answer that are kept.
const FIRST_LETTERS: usize = 120;

/// The last lines of what a program wrote to standard error. Its folder becomes `{folder}`, every other absolute path
/// `…`: paths can name persons, and scratch folders have another name in every run.
pub(super) fn last_words(stderr: &[u8], folder: &Path) -> String {
    let text = String::from_utf8_lossy(stderr).replace(&*folder.to_string_lossy(), "{folder}");
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join(" | ");
    let plain: String = without_paths(&last).chars().filter(|letter| !letter.is_control()).collect();
    let surplus = plain.chars().count().saturating_sub(LETTERS);
    if surplus == 0 { plain } else { format!("…{}", plain.chars().skip(surplus).collect::<String>()) }
}

/// The beginning of an answer that makes no sense, in the same way.
pub(super) fn first_words(answer: &[u8]) -> String {
    let begin = &answer[..answer.len().min(4 * LETTERS)];
    let text = String::from_utf8_lossy(begin);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain: String = without_paths(&line).chars().filter(|letter| !letter.is_control()).collect();
    let shown: String = plain.chars().take(FIRST_LETTERS).collect();
    if shown.len() < plain.len() || begin.len() < answer.len() { format!("{shown}…") } else { shown }
}

/// The text with `…` for whatever begins like an absolute path.
fn without_paths(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let begins = (letter == '/' || rest.starts_with("~/")) && !(before.is_alphanumeric() || "}./".contains(before));
        let end = if begins { path_end(rest, before) } else { 0 };
        if end > 1 {
            plain.push('…');
            before = '…';
            rest = &rest[end..];
        } else {
            plain.push(letter);
            before = letter;
            rest = &rest[letter.len_utf8()..];
        }
    }
    plain
}

/// Where a path ends: at its closing quote, else before white space and what follows a path in a sentence.
fn path_end(rest: &str, before: char) -> usize {
    let quoted = ['"', '\'', '`'].contains(&before).then(|| rest.find(before)).flatten();
    let open = || rest.find(|c: char| c.is_whitespace() || "\"'`,;:()[]<>|".contains(c)).unwrap_or(rest.len());
    quoted.unwrap_or_else(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        last_words(text.as_bytes(), Path::new("/tmp/freetumor-x1"))
    }

    #[test]
    fn the_last_lines_are_kept_and_paths_are_not() {
        let traceback = "Traceback:\n  File \"/home/j smith/seg.py\", line 3, in main\n    run()\n\nValueError: no /data/doe^jane/ct.nii: bad\r\n";
        assert_eq!(words(traceback), "File \"…\", line 3, in main | run() | ValueError: no …: bad");
        assert_eq!(words("cannot read /tmp/freetumor-x1/image.nii.gz"), "cannot read {folder}/image.nii.gz");
        assert_eq!(words("~/x failed; 3/4 of ~ done and/or a/b"), "… failed; 3/4 of ~ done and/or a/b");
        assert_eq!(words("--in=/a/b (/c/d)"), "--in=… (…)");
        assert_eq!(words(""), "");
    }

    #[test]
    fn an_answer_is_shown_from_its_beginning() {
        let shown = |answer: &[u8]| first_words(answer);
        assert_eq!(shown(b"{\n  \"dice\": nan,\n  \"of\": \"/home/j/x\"\n}"), "{ \"dice\": nan, \"of\": \"…\" }");
        assert_eq!(shown(b""), "");
        let long = shown(&[b'a'; 5000]);
        assert_eq!((long.chars().count(), long.ends_with('…')), (FIRST_LETTERS + 1, true));
    }

    #[test]
    fn they_are_short_and_printable() {
        let long = words(&"ä".repeat(5000));
        assert_eq!((long.chars().count(), long.starts_with('…')), (LETTERS + 1, true));
        assert_eq!(last_words(b"\x1b[31mred\xff\x00", Path::new("/t")), "[31mred\u{fffd}");
    }
}
