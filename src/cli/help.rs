//! The command with its complete help: examples and exit codes of every subcommand.

use clap::Command;

/// Columns to which help is wrapped on wider terminals.
const MAX_COLUMNS: usize = 100;

/// Heading of the exit codes in the help.
pub const EXIT_HEADING: &str = "Exit codes";

const EXIT_CODES: &str = "\
Exit codes:
  0  finished without failures
  1  finished, but some scans, cases or samples failed
  2  could not run";

/// Examples of each subcommand.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "run",
        &[
            "freetumor run pipelines/quickstart.toml",
            "freetumor run mine.toml --out runs/mine --threads 8 --memory 16GiB",
            "freetumor run mine.toml --set stages.test.attempts=5 --limit 10",
            "freetumor run mine.toml --out runs/mine --follow",
        ],
    ),
    ("init", &["freetumor init archive", "freetumor init /data/Task03_Liver --out liver.toml"]),
    (
        "plan",
        &["freetumor plan runs/mine mine.toml", "freetumor plan runs/mine mine.toml --set stages.test.attempts=12"],
    ),
    ("explain", &["freetumor explain runs/mine 00ff2a0000000001"]),
    ("replay", &["freetumor replay runs/mine 00ff2a0000000001"]),
    ("validate", &["freetumor validate mine.toml", "freetumor validate pipelines/train-segmentor-small.toml --json"]),
    ("graph", &["freetumor graph mine.toml --format svg"]),
    ("schema", &["freetumor schema pipeline", "freetumor schema samples"]),
    ("files", &["freetumor files runs/mine samples", "freetumor files runs/mine samples --at 0"]),
    ("status", &["freetumor status runs/mine", "freetumor status runs/mine --json"]),
    ("scans", &["freetumor scans runs/mine --failed --paths", "freetumor scans runs/mine --changed"]),
    ("retry", &["freetumor retry runs/mine", "freetumor retry runs/mine --where kind=program"]),
    (
        "withdraw",
        &[
            "freetumor withdraw runs/mine --scan 00ff2a0000000001",
            "freetumor withdraw runs/mine --patient 00ff2a0000000001 --purge --receipt receipt.json",
        ],
    ),
    ("vacuum", &["freetumor vacuum runs/mine --keep-epochs 20"]),
    ("tag", &["freetumor tag runs/mine v1", "freetumor tag runs/mine"]),
    ("diff", &["freetumor diff runs/mine@v1 runs/mine", "freetumor diff runs/mine runs/other --json"]),
    (
        "export",
        &[
            "freetumor export runs/mine --to liver --layout nnunet --where 'organ = liver'",
            "freetumor export runs/mine --to balanced --layout patches --at-most 100 --per organ,size_class",
        ],
    ),
    (
        "inspect",
        &[
            "freetumor inspect archive/case-1/ct.nii.gz",
            "freetumor inspect runs/mine 00ff2a0000000001 --png sample.png",
            "freetumor inspect archive/case-1/dicom --labels labels.nii.gz --png case-1.png",
        ],
    ),
    (
        "infer",
        &["freetumor infer --model unet3d --weights segmentor.safetensors --input ct.nii.gz --output labels.nii.gz"],
    ),
    (
        "evaluate",
        &[
            "freetumor evaluate --truth data --predictions predictions",
            "freetumor evaluate --truth data --arm real=real-0,real-1 --arm filtered=filtered-0,filtered-1",
        ],
    ),
    (
        "calibrate",
        &[
            "freetumor calibrate mine.toml --labeled train-segmentor.toml",
            "freetumor calibrate mine.toml --labeled train-segmentor.toml --steer 4 --out liver.reference.json",
        ],
    ),
    (
        "train",
        &[
            "freetumor train segmentor pipelines/train-segmentor-small.toml",
            "freetumor train segmentor pipelines/train-segmentor-small.toml --resume",
            "freetumor train segmentor pipelines/train-segmentor-small.toml --folds 5",
        ],
    ),
    ("completions", &["freetumor completions bash > ~/.local/share/bash-completion/completions/freetumor"]),
    ("man", &["freetumor man > freetumor.1", "freetumor man --to man1"]),
];

/// Adds examples and exit codes to the help of the command.
pub fn with_help(command: Command) -> Command {
    let command = command.max_term_width(MAX_COLUMNS).after_help(EXIT_CODES);
    EXAMPLES.iter().fold(command, |command, (name, examples)| {
        let lines: Vec<String> = examples.iter().map(|example| format!("  {example}")).collect();
        let text = format!("Examples:\n{}\n\n{EXIT_CODES}", lines.join("\n"));
        command.mut_subcommand(*name, |subcommand| subcommand.after_help(text))
    })
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::*;

    #[test]
    fn clap_debug_assert_accepts_command() {
        command().debug_assert();
    }

    #[test]
    fn every_visible_subcommand_has_examples_that_parse() {
        let command = command();
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            let name = subcommand.get_name();
            assert!(EXAMPLES.iter().any(|(example, _)| *example == name), "{name} has no example");
        }
        for example in EXAMPLES.iter().flat_map(|(_, examples)| *examples) {
            let words = example.split(" > ").next().unwrap().replace("'organ = liver'", "organ=liver");
            let parsed = command.clone().try_get_matches_from(words.split(' '));
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
    }
}
