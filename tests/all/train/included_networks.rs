//! The small networks in pipelines/networks.

use std::path::Path;
use std::process::Command;

use freetumor::simd::Class;

/// The networks equal the output of the commands on their model card.
#[test]
#[ignore = "trains for 15 minutes: cargo test --release -- --ignored included_networks"]
fn included_networks_equal_output_of_their_commands() {
    if Class::current() != Class::Avx512 {
        eprintln!(
            "skipped: the networks were trained with kernels of class avx512; weights of another class differ in the last bits"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    std::fs::create_dir(folder.path().join("pipelines")).unwrap();
    for name in ["train-segmentor-small.toml", "train-synthesis-small.toml"] {
        std::fs::copy(pipelines.join(name), folder.path().join("pipelines").join(name)).unwrap();
    }
    let card = std::fs::read_to_string(pipelines.join("networks/README.md")).unwrap().replace("\\\n", " ");
    let commands: Vec<&str> = card.lines().filter_map(|line| line.strip_prefix("$ freetumor ")).collect();
    assert_eq!(commands.len(), 3);
    for command in commands {
        let arguments = command.split('#').next().unwrap().split_whitespace();
        let mut program = Command::new(env!("CARGO_BIN_EXE_freetumor"));
        program.env("FREETUMOR_PATIENT_KEY", "a secret for tests only").current_dir(folder.path());
        let output = program.args(arguments).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for (included, trained) in [
        ("segmentor", "segmentor-small/weights/segmentor"),
        ("held_out", "held-out-small/weights/segmentor"),
        ("generator", "synthesis-small/weights/generator"),
        ("discriminator", "synthesis-small/weights/discriminator"),
    ] {
        let read = |path: &Path| std::fs::read(path.with_extension("safetensors")).unwrap();
        let same = read(&pipelines.join("networks").join(included)) == read(&folder.path().join("runs").join(trained));
        assert!(same, "{included}: the file in pipelines/networks differs from the output of its command");
    }
}
