//! What blobs are called in an object store. Any name is allowed and gets back out as it went in; only names that are paths of
//! plain characters stay as they are. A segment's awkward characters are encoded by `object_store`; an empty segment, which
//! it has no way to write, is written here.

use object_store::path::{Path, PathPart};
use percent_encoding::percent_decode_str;
use tollgate_proto::EffectName;

/// Longest path, in bytes: what S3 takes for a key (Azure: as many characters).
pub(crate) const OBJECT_PATH_BYTES_MAX: usize = 1024;

/// What stands for an empty segment: an encoded slash, which no segment contains.
const EMPTY: &str = "%2F";

/// Where a blob lies.
pub(crate) fn of_name(root: &Path, name: &EffectName) -> Path {
    name.as_str().split('/').fold(root.clone(), |path, segment| path.join(part(segment)))
}

/// The blob that lies at a path. `None`: it is not one of ours.
pub(crate) fn to_name(root: &Path, path: &Path) -> Option<EffectName> {
    let segments: Option<Vec<String>> = path.prefix_match(root)?.map(|part| segment(&part)).collect();
    EffectName::new(segments?.join("/")).ok()
}

/// The folder in which all blobs lie whose names begin with a prefix: its last segment may be a part of theirs.
pub(crate) fn folder_of_prefix(root: &Path, prefix: &str) -> Path {
    let Some((folder, _)) = prefix.rsplit_once('/') else { return root.clone() };
    folder.split('/').fold(root.clone(), |path, segment| path.join(part(segment)))
}

fn part(segment: &str) -> PathPart<'_> {
    if segment.is_empty() {
        PathPart::parse(EMPTY).expect("the constant is a valid segment")
    } else {
        PathPart::from(segment)
    }
}

fn segment(part: &PathPart<'_>) -> Option<String> {
    match part.as_ref() {
        EMPTY => Some(String::new()),
        other => percent_decode_str(other).decode_utf8().ok().map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(name: &str) -> String {
        of_name(&Path::from("root"), &EffectName::new(name).unwrap()).to_string()
    }

    #[test]
    fn plain_names_stay_as_they_are_and_awkward_ones_stay_below_the_root() {
        assert_eq!(path("bodies/0190-1.json"), "root/bodies/0190-1.json");
        assert_eq!(path("../../etc/passwd"), "root/%2E%2E/%2E%2E/etc/passwd");
        assert_eq!(path("a//b"), "root/a/%2F/b");
        assert_eq!(path("/a/"), "root/%2F/a/%2F");
        assert_eq!(path("a%2Fb"), "root/a%252Fb");
    }

    #[test]
    fn what_others_keep_beside_the_root_is_no_blob() {
        let root = Path::from("root");
        assert_eq!(to_name(&root, &Path::from("rooted/a")), None);
        assert_eq!(to_name(&root, &Path::parse("root/%FF").unwrap()), None);
    }

    proptest! {
        #[test]
        fn every_name_comes_back_as_it_went_in(name in "[a/.%~ ö\\\\?#{}\u{1}]{1,12}", root in "(|r|r/s)") {
            let (root, name) = (Path::from(root), EffectName::new(&name).unwrap());
            prop_assert_eq!(to_name(&root, &of_name(&root, &name)), Some(name));
        }

        #[test]
        fn the_folder_of_a_prefix_holds_every_name_that_begins_with_it(name in "[a/.]{1,8}", length in 0_usize..8) {
            let root = Path::from("root");
            let prefix = &name[..length.min(name.len())];
            let path = of_name(&root, &EffectName::new(&name).unwrap());
            let folder = folder_of_prefix(&root, prefix);
            prop_assert!(path.prefix_match(&folder).is_some_and(|mut rest| rest.next().is_some()));
        }
    }
}
