//! A disk that can be filled: a small tmpfs, where this process may mount one.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Size of the disk, as `mount` reads it.
const SIZE: &str = "size=64m";
/// More than that disk holds.
const FILLER_BYTES_MAX: u64 = 128 << 20;

/// A mounted tmpfs; unmounted when dropped.
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts one at a place that exists, or says why that cannot be done.
    pub fn mount(place: &Path) -> Result<Self, String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "musher-chaos"]).arg(place);
        let output = mount.stdin(Stdio::null()).output().map_err(|error| format!("no mount: {error}"))?;
        if output.status.success() {
            Ok(Self { place: place.to_owned() })
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }

    /// Takes all room but `left` bytes.
    pub fn fill(&self, left: u64) -> std::io::Result<()> {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.filler())?;
        let zeros = vec![0; 1 << 16];
        // Other writers come and go; what is wanted is that there is next to nothing at some moment.
        let mut piece = zeros.len();
        while piece > 0 && filler.metadata()?.len() < FILLER_BYTES_MAX {
            if filler.write_all(&zeros[..piece]).is_err() {
                piece /= 2;
            }
        }
        let bytes = filler.metadata()?.len();
        filler.set_len(bytes.saturating_sub(left))
    }

    /// Gives the room back.
    pub fn give_back(&self) {
        // Not there is as good.
        let _ = std::fs::remove_file(self.filler());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}
