//! Where everything stands in a cache's directory.
//!
//! ```text
//! squall-cache-v1/usage                                        bytes in all, under the lock of this file
//!                 objects/<2 digits>/<key>-<shelf>/<slot>-<part>-<unique>   an entry
//!                 tmp/<unique>                                 an entry that is being written, under its writer's lock
//!                 claims/<key>-<slot>-<part>                   what is being fetched of a slot, under the fetcher's lock
//! ```
//!
//! The directory is the index: a name says all that eviction needs, and a rename is what makes an entry. A slot is a stretch of
//! 8 MiB of an object, a shelf 8 slots, so that no directory grows large. The locks are those of the operating system
//! (`flock`), which ends them with the process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use super::key::ObjectKey;

/// The folder in the directory that users name. Another layout has another name.
const FOLDER: &str = "squall-cache-v1";
/// What backup programs know a cache by (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# The local cache of Squall. It may be deleted while nothing uses it.\n";

const SLOTS_OF_SHELF: u64 = 8;

/// The folder of a cache.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

/// A shelf of an object, by the digest of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shelf {
    pub(super) object: u128,
    number: u64,
}

impl Shelf {
    pub(super) fn of(key: &ObjectKey, slot: u64) -> Self {
        Self {
            object: key.digest(),
            number: slot / SLOTS_OF_SHELF,
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (object, number) = name.split_once('-')?;
        Some(Self {
            object: u128::from_str_radix(object, 16).ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        })
    }
}

/// What the name of an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryName {
    pub(super) slot: u64,
    pub(super) part: Option<u64>,
}

impl EntryName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut fields = name.split('-');
        let (slot, part, _) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            slot: u64::from_str_radix(slot, 16).ok()?,
            part: match part {
                "x" => None,
                part => Some(part.parse().ok()?),
            },
        })
    }
}

impl Layout {
    /// Makes the folder, which only its owner may look into: it has copies of data that was read with somebody's credentials.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let layout = Self {
            root: directory.canonicalize()?.join(FOLDER),
        };
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&layout.root)?;
        for folder in [layout.objects(), layout.tmp(), layout.claims()] {
            fs::create_dir_all(folder)?;
        }
        let tag = layout.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(tag, CACHEDIR_TAG)?;
        }
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn usage(&self) -> PathBuf {
        self.root.join("usage")
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    pub(super) fn shelf(&self, shelf: Shelf) -> PathBuf {
        let name = format!("{:032x}-{:x}", shelf.object, shelf.number);
        self.objects().join(&name[..2]).join(name)
    }

    pub(super) fn entry(&self, key: &ObjectKey, name: EntryName) -> PathBuf {
        let part = name.part.map_or("x".to_owned(), |part| part.to_string());
        let name_of_file = format!("{:x}-{part}-{}", name.slot, unique());
        self.shelf(Shelf::of(key, name.slot)).join(name_of_file)
    }

    pub(super) fn claim(&self, key: &ObjectKey, EntryName { slot, part }: EntryName) -> PathBuf {
        let part = part.map_or("x".to_owned(), |part| part.to_string());
        self.claims().join(format!("{:032x}-{slot:x}-{part}", key.digest()))
    }
}

/// A name that no other file has.
pub(super) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!(
        "{:x}.{:016x}",
        std::process::id(),
        xxh3_64(format!("{time} {count}").as_bytes())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::create(directory.path()).expect("a layout");
        let key = ObjectKey::new("s3://a", "x", 1 << 40, Some("1"), None).expect("a key");
        for (slot, part) in [(0, None), (77, Some(0)), (1 << 17, Some(u64::MAX))] {
            let path = layout.entry(&key, EntryName { slot, part });
            let name = |path: &Path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .expect("a name")
                    .to_owned()
            };
            assert_eq!(EntryName::parse(&name(&path)), Some(EntryName { slot, part }));
            let shelf = Shelf::parse(&name(path.parent().expect("a shelf")));
            assert_eq!(shelf, Some(Shelf::of(&key, slot)));
            assert_eq!(layout.shelf(Shelf::of(&key, slot)), path.parent().expect("a shelf"));
        }
        for name in ["", "x", "1-x", "g-1-2", "1-y-2"] {
            assert_eq!(EntryName::parse(name), None, "{name}");
        }
        assert_ne!(unique(), unique());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_look_into_it() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::create(directory.path()).expect("a layout");
        let mode = fs::metadata(layout.root()).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
