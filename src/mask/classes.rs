//! The names and ids of the classes of TotalSegmentator v2.

use crate::suggest::did_you_mean;

/// The number of classes of the `total` task of TotalSegmentator v2, whose ids are 1 to 117.
pub const CLASS_COUNT: u16 = 117;

/// Names of the classes before the vertebrae, by id − 1; names of vertebrae and ribs are generated in [`class_name`].
const BEFORE_VERTEBRAE: [&str; 25] = [
    "spleen",
    "kidney_right",
    "kidney_left",
    "gallbladder",
    "liver",
    "stomach",
    "pancreas",
    "adrenal_gland_right",
    "adrenal_gland_left",
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
    "esophagus",
    "trachea",
    "thyroid_gland",
    "small_bowel",
    "duodenum",
    "colon",
    "urinary_bladder",
    "prostate",
    "kidney_cyst_left",
    "kidney_cyst_right",
    "sacrum",
];

/// Names of the classes from the heart to the skull, by id − 51.
const AFTER_VERTEBRAE: [&str; 41] = [
    "heart",
    "aorta",
    "pulmonary_vein",
    "brachiocephalic_trunk",
    "subclavian_artery_right",
    "subclavian_artery_left",
    "common_carotid_artery_right",
    "common_carotid_artery_left",
    "brachiocephalic_vein_left",
    "brachiocephalic_vein_right",
    "atrial_appendage_left",
    "superior_vena_cava",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    "iliac_artery_left",
    "iliac_artery_right",
    "iliac_vena_left",
    "iliac_vena_right",
    "humerus_left",
    "humerus_right",
    "scapula_left",
    "scapula_right",
    "clavicula_left",
    "clavicula_right",
    "femur_left",
    "femur_right",
    "hip_left",
    "hip_right",
    "spinal_cord",
    "gluteus_maximus_left",
    "gluteus_maximus_right",
    "gluteus_medius_left",
    "gluteus_medius_right",
    "gluteus_minimus_left",
    "gluteus_minimus_right",
    "autochthon_left",
    "autochthon_right",
    "iliopsoas_left",
    "iliopsoas_right",
    "brain",
    "skull",
];

/// Other names of organs, each with the name of TotalSegmentator.
const ALIASES: [(&str, &str); 22] = [
    ("bladder", "urinary_bladder"),
    ("bowel", "small_bowel"),
    ("clavicle", "clavicula"),
    ("collarbone", "clavicula"),
    ("gullet", "esophagus"),
    ("intestine", "small_bowel"),
    ("ivc", "inferior_vena_cava"),
    ("large_bowel", "colon"),
    ("large_intestine", "colon"),
    ("oesophagus", "esophagus"),
    ("shoulder_blade", "scapula"),
    ("small_intestine", "small_bowel"),
    ("spine", "vertebrae"),
    ("splenic_vein", "portal_vein_and_splenic_vein"),
    ("suprarenal", "adrenal_gland"),
    ("suprarenal_gland", "adrenal_gland"),
    ("svc", "superior_vena_cava"),
    ("thighbone", "femur"),
    ("vena_cava", "inferior_vena_cava"),
    ("vertebra", "vertebrae"),
    ("vertebral_column", "vertebrae"),
    ("windpipe", "trachea"),
];

/// Returns the name of a class; `None` outside 1..=117.
///
/// ```
/// use freetumor::mask::class_name;
/// assert_eq!(class_name(5).as_deref(), Some("liver"));
/// assert_eq!(class_name(27).as_deref(), Some("vertebrae_L5"));
/// assert_eq!(class_name(104).as_deref(), Some("rib_right_1"));
/// assert_eq!(class_name(118), None);
/// ```
pub fn class_name(id: u16) -> Option<String> {
    // Classes are numbered from inferior to superior: S1, L5..L1, T12..T1, C7..C1.
    let vertebra = |n: u16| match n {
        0 => "S1".to_owned(),
        1..=5 => format!("L{}", 6 - n),
        6..=17 => format!("T{}", 18 - n),
        _ => format!("C{}", 25 - n),
    };
    Some(match id {
        1..=25 => BEFORE_VERTEBRAE[usize::from(id) - 1].to_owned(),
        26..=50 => format!("vertebrae_{}", vertebra(id - 26)),
        51..=91 => AFTER_VERTEBRAE[usize::from(id) - 51].to_owned(),
        92..=103 => format!("rib_left_{}", id - 91),
        104..=115 => format!("rib_right_{}", id - 103),
        116 => "sternum".to_owned(),
        117 => "costal_cartilages".to_owned(),
        _ => return None,
    })
}

/// Returns the ids of an organ: the class of that name, or all classes whose names start with it (`kidney` is both kidneys,
/// `lung` its five lobes, `vertebrae` the whole spine). Cysts are not part of the kidney.
///
/// ```
/// use freetumor::mask::class_ids;
/// assert_eq!(class_ids("kidney"), [2, 3]);
/// assert_eq!(class_ids("lung"), [10, 11, 12, 13, 14]);
/// assert!(class_ids("lver").is_empty());
/// ```
pub fn class_ids(organ: &str) -> Vec<u16> {
    let exact: Vec<u16> = (1..=CLASS_COUNT).filter(|&id| class_name(id).is_some_and(|name| name == organ)).collect();
    if !exact.is_empty() {
        return exact;
    }
    let belongs =
        |name: String| name.strip_prefix(organ).is_some_and(|rest| rest.starts_with('_') && !rest.starts_with("_cyst"));
    (1..=CLASS_COUNT).filter(|&id| class_name(id).is_some_and(belongs)).collect()
}

/// Returns a hint with the name that an unknown organ probably means, that of an alias or the closest one; `None` if no name is similar.
pub(super) fn did_you_mean_organ(organ: &str) -> Option<String> {
    let folded = organ.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    let singular = folded.strip_suffix('s').unwrap_or(&folded);
    if let Some((_, name)) = ALIASES.iter().find(|(alias, _)| *alias == folded || *alias == singular) {
        return Some(format!("did you mean `{name}`?"));
    }
    let known = known_names();
    let sorted = |name: &str| {
        let mut words: Vec<String> = name.split('_').map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    if let Some(name) = known.iter().find(|name| sorted(name) == sorted(&folded)) {
        return Some(format!("did you mean `{name}`?"));
    }
    did_you_mean(&folded, known.iter().map(String::as_str))
}

/// Returns all names of classes and organs, for hints.
fn known_names() -> Vec<String> {
    let mut names: Vec<String> = (1..=CLASS_COUNT).filter_map(class_name).collect();
    let organs =
        ["kidney", "lung", "adrenal_gland", "vertebrae", "hip", "femur", "clavicula", "scapula", "humerus", "rib"];
    names.extend(organs.map(str::to_owned));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_unique_and_match_ids() {
        let names: std::collections::BTreeSet<_> = (1..=CLASS_COUNT).map(|id| class_name(id).unwrap()).collect();
        assert_eq!(names.len(), usize::from(CLASS_COUNT));
        // Ids that the scans of the shared folder confirm, and both ends of each numbered range.
        let first = [(1, "spleen"), (7, "pancreas"), (20, "colon"), (26, "vertebrae_S1"), (50, "vertebrae_C1")];
        let second =
            [(52, "aorta"), (63, "inferior_vena_cava"), (91, "skull"), (92, "rib_left_1"), (115, "rib_right_12")];
        for (id, name) in first.into_iter().chain(second).chain([(43, "vertebrae_T1"), (79, "spinal_cord")]) {
            assert_eq!(class_name(id).as_deref(), Some(name));
        }
    }

    #[test]
    fn every_alias_names_an_organ_and_is_not_one() {
        for (alias, name) in ALIASES {
            assert!(!class_ids(name).is_empty(), "{name}");
            assert!(class_ids(alias).is_empty() || alias == "vertebra", "{alias}");
            assert_eq!(did_you_mean_organ(alias).unwrap(), format!("did you mean `{name}`?"));
        }
        for (organ, hint) in [
            ("Bladder", "urinary_bladder"),
            ("lver", "liver"),
            ("left kidney", "kidney_left"),
            ("thyroid", "thyroid_gland"),
        ] {
            assert_eq!(did_you_mean_organ(organ), Some(format!("did you mean `{hint}`?")), "{organ}");
        }
        assert_eq!(did_you_mean_organ("brown fat"), None);
    }

    #[test]
    fn organ_matches_whole_name_segments_only() {
        assert_eq!(class_ids("iliac_artery"), [65, 66]);
        assert!(class_ids("kid").is_empty());
        assert!(class_ids("").is_empty());
        assert_eq!(class_ids("vertebrae").len(), 25);
        assert_eq!(class_ids("kidney_cyst_left"), [23]);
    }
}
