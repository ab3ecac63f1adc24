//! The arms that a command is given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{EvaluateArgs, files};
use crate::cli::network::Opened;
use crate::error::{Error, Result};

/// An arm as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmArg {
    name: String,
    paths: Vec<PathBuf>,
}

impl FromStr for ArmArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a name and at least one path, such as rules=runs/a,runs/b".to_owned();
        let (name, paths) = text.split_once('=').ok_or_else(expected)?;
        let paths: Vec<PathBuf> = paths.split(',').map(|path| PathBuf::from(path.trim())).collect();
        let is_good = !name.trim().is_empty() && paths.iter().all(|path| !path.as_os_str().is_empty());
        if is_good { Ok(Self { name: name.trim().to_owned(), paths }) } else { Err(expected()) }
    }
}

/// An arm, ready.
pub struct Arm {
    pub name: String,
    /// One a seed.
    pub networks: Vec<Origin>,
}

/// Where a seed's predictions come from.
pub enum Origin {
    /// Files by case.
    Folder(BTreeMap<String, PathBuf>),
    /// A network that is shown the scans.
    Network(Box<Opened>),
}

/// Opens all arms.
///
/// # Errors
/// Where there is none, two have one name, a folder is empty, or weights cannot be opened.
pub fn arms(args: &EvaluateArgs) -> Result<Vec<Arm>> {
    let short = |name: &str, path: &PathBuf| ArmArg { name: name.to_owned(), paths: vec![path.clone()] };
    let mut given = args.arm.clone();
    given.extend(args.predictions.as_ref().map(|path| short("predictions", path)));
    given.extend(args.weights.as_ref().map(|path| short("network", path)));
    if given.is_empty() {
        return Err(Error::new("expected something to evaluate, got no arm")
            .with_hint("--predictions DIR, --arm NAME=DIR, or --weights FILE with --model and --images"));
    }
    let mut arms: Vec<Arm> = Vec::new();
    for ArmArg { name, paths } in given {
        if arms.iter().any(|arm| arm.name == name) {
            return Err(Error::new(format!("two arms are called {name:?}"))
                .with_hint(format!("seeds of one arm are given together: --arm {name}=DIR1,DIR2")));
        }
        if let Some(twice) = paths.iter().enumerate().find(|(at, path)| paths[..*at].contains(path)) {
            let path = twice.1.display();
            return Err(Error::new(format!(
                "arm {name:?} has {path} twice: each seed of an arm is a network of its own"
            )));
        }
        let networks = paths.iter().map(|path| origin(args, path)).collect::<Result<_>>()?;
        arms.push(Arm { name, networks });
    }
    Ok(arms)
}

fn origin(args: &EvaluateArgs, path: &Path) -> Result<Origin> {
    if path.is_dir() {
        return Ok(Origin::Folder(files::list(&files::label_folder(path)?)?));
    }
    if !path.exists() {
        return Err(Error::new(format!(
            "{} does not exist: expected a folder of label maps, or weights",
            path.display()
        )));
    }
    let (Some(model), Some(_)) = (args.model, &args.images) else {
        return Err(Error::new(format!("{} is a file, and so taken for weights", path.display()))
            .with_hint("say what they are of and what to show them: --model unet3d --images DIR"));
    };
    args.network.check_windows(model, path)?;
    let opened = args.network.open(model, path)?;
    let classes = opened.predictor.config().classes;
    let ids = args.organ.iter().flat_map(|organ| organ.organ_id.into_iter().chain([organ.tumor_id]));
    if let Some(id) = ids.max().filter(|id| usize::from(*id) >= classes) {
        let most = classes - 1;
        return Err(Error::new(format!("{} gives labels 0 to {most}, --organ asks for {id}", path.display()))
            .with_hint("are these the weights of a segmentor of these organs?"));
    }
    Ok(Origin::Network(Box::new(opened)))
}

/// The pairs of arms to compare, by their places.
///
/// # Errors
/// Where a pair names an arm that is not there.
pub fn comparisons(args: &EvaluateArgs, arms: &[Arm]) -> Result<Vec<[usize; 2]>> {
    if args.compare.is_empty() {
        return Ok((1..arms.len()).map(|arm| [arm, 0]).collect());
    }
    let place = |name: &str| arms.iter().position(|arm| arm.name == name.trim());
    let pair = |text: &String| {
        let pair = text.split_once(',').and_then(|(one, other)| Some([place(one)?, place(other)?]));
        pair.filter(|[one, other]| one != other).ok_or_else(|| {
            let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
            Error::new(format!("--compare {text}: expected two different arms with a comma between them"))
                .with_hint(format!("the arms are {}", names.join(", ")))
        })
    };
    args.compare.iter().map(pair).collect()
}
