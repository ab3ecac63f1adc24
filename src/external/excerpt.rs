//! Excerpts of a program's output for tables: short, printable, without paths.

use std::path::Path;

/// Maximum number of lines of standard error, and of their characters.
const LINES: usize = 3;
const CHARACTERS: usize = 400;
/// Maximum number of characters of invalid output.
const START_CHARACTERS: usize = 120;

/// Returns the last lines of standard error. The scratch folder is replaced by `{folder}`, every other absolute path by `…`: paths can
/// name persons, and scratch folders have another name in every run.
pub(super) fn last_lines(stderr: &[u8], folder: &Path) -> String {
    let text = String::from_utf8_lossy(stderr).replace(&*folder.to_string_lossy(), "{folder}");
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join(" | ");
    let plain: String = without_paths(&last).chars().filter(|letter| !letter.is_control()).collect();
    let surplus = plain.chars().count().saturating_sub(CHARACTERS);
    if surplus == 0 { plain } else { format!("…{}", plain.chars().skip(surplus).collect::<String>()) }
}

/// Returns the start of invalid output, without paths.
pub(super) fn start_of(output: &[u8]) -> String {
    let start = &output[..output.len().min(4 * CHARACTERS)];
    let text = String::from_utf8_lossy(start);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain: String = without_paths(&line).chars().filter(|letter| !letter.is_control()).collect();
    let shown: String = plain.chars().take(START_CHARACTERS).collect();
    if shown.len() < plain.len() || start.len() < output.len() { format!("{shown}…") } else { shown }
}

/// Replaces absolute paths by `…`.
fn without_paths(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let is_path =
            (letter == '/' || rest.starts_with("~/")) && !(before.is_alphanumeric() || "}./".contains(before));
        let end = if is_path { path_end(rest, before) } else { 0 };
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

/// Returns the end of a path: its closing quote, else the next white space or punctuation.
fn path_end(rest: &str, before: char) -> usize {
    let quoted = ['"', '\'', '`'].contains(&before).then(|| rest.find(before)).flatten();
    let open = || rest.find(|c: char| c.is_whitespace() || "\"'`,;:()[]<>|".contains(c)).unwrap_or(rest.len());
    quoted.unwrap_or_else(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str) -> String {
        last_lines(text.as_bytes(), Path::new("/tmp/freetumor-x1"))
    }

    #[test]
    fn last_lines_removes_paths() {
        let traceback = "Traceback:\n  File \"/home/j smith/seg.py\", line 3, in main\n    run()\n\nValueError: no /data/doe^jane/ct.nii: bad\r\n";
        assert_eq!(excerpt(traceback), "File \"…\", line 3, in main | run() | ValueError: no …: bad");
        assert_eq!(excerpt("cannot read /tmp/freetumor-x1/image.nii.gz"), "cannot read {folder}/image.nii.gz");
        assert_eq!(excerpt("~/x failed; 3/4 of ~ done and/or a/b"), "… failed; 3/4 of ~ done and/or a/b");
        assert_eq!(excerpt("--in=/a/b (/c/d)"), "--in=… (…)");
        assert_eq!(excerpt(""), "");
    }

    #[test]
    fn start_of_output_is_short_and_without_paths() {
        let shown = |output: &[u8]| start_of(output);
        assert_eq!(shown(b"{\n  \"dice\": nan,\n  \"of\": \"/home/j/x\"\n}"), "{ \"dice\": nan, \"of\": \"…\" }");
        assert_eq!(shown(b""), "");
        let long = shown(&[b'a'; 5000]);
        assert_eq!((long.chars().count(), long.ends_with('…')), (START_CHARACTERS + 1, true));
    }

    #[test]
    fn last_lines_is_short_and_printable() {
        let long = excerpt(&"ä".repeat(5000));
        assert_eq!((long.chars().count(), long.starts_with('…')), (CHARACTERS + 1, true));
        assert_eq!(last_lines(b"\x1b[31mred\xff\x00", Path::new("/t")), "[31mred\u{fffd}");
    }
}
