//! Where the table and the plot go: into the crate's README and `docs/`, after a smoke run beside the build.

use std::fs;
use std::path::{Path, PathBuf};

/// The section of the README that this build's run writes.
const SECTION: &str = if cfg!(feature = "aws-lc-rs") { "bench-table" } else { "bench-table-portable" };

pub(crate) struct Place {
    readme: PathBuf,
    /// Where the README is written back to.
    to: PathBuf,
    plot: PathBuf,
}

impl Place {
    pub(crate) fn of(quick: bool) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let readme = root.join("README.md");
        if quick {
            let folder = std::env::temp_dir().join("strongroom-bench-table");
            fs::create_dir_all(folder.join("docs")).unwrap();
            return Self { readme, to: folder.join("README.md"), plot: folder.join("docs/bench.svg") };
        }
        fs::create_dir_all(root.join("docs")).unwrap();
        Self { to: readme.clone(), readme, plot: root.join("docs/bench.svg") }
    }

    pub(crate) fn table(&self, markdown: &str) {
        let image = if cfg!(feature = "aws-lc-rs") {
            "![Nanoseconds to seal and to open 256 bytes, by strongroom and by others](docs/bench.svg)\n\n"
        } else {
            ""
        };
        let readme = with_section(&fs::read_to_string(&self.readme).unwrap(), &format!("{image}{markdown}"));
        fs::write(&self.to, readme).unwrap();
        eprintln!("section {SECTION} of {}", self.to.display());
    }

    pub(crate) fn plot(&self, svg: &str) {
        fs::write(&self.plot, svg).unwrap();
        eprintln!("plot in {}", self.plot.display());
    }
}

/// `readme` with `content` between the markers of [`SECTION`].
fn with_section(readme: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {SECTION} -->\n"), format!("<!-- /{SECTION} -->"));
    let (before, rest) = readme.split_once(&begin).unwrap_or_else(|| panic!("no {begin} in the README"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end} in the README"));
    format!("{before}{begin}\n{content}\n{end}{after}")
}
