//! `outboard new-backend`: a crate that is a backend, with tests, checks and a Makefile.
//!
//! The files are under `template/`. `{{name}}` and the like in them are replaced, and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use vhost_user_wire::DeviceType;

#[derive(Args, Debug)]
pub struct NewBackendArgs {
    /// Name of the crate and its program.
    name: String,
    /// The device: blk or rng, or any other type or virtio device number, for one queue that echoes.
    #[arg(long = "type", value_name = "TYPE")]
    device_type: DeviceType,
    /// The directory to create [default: NAME].
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The checkout of Outboard that has the kit [default: the one this program was built in].
    #[arg(long, value_name = "DIR", default_value = CHECKOUT, hide_default_value = true)]
    kit: PathBuf,
}

const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Why there is no new backend.
#[derive(Debug, thiserror::Error)]
pub enum NewBackendError {
    #[error(
        "{name:?} cannot be the name of a crate: {reason}; give one of ASCII letters, digits, - \
         and _, such as my-device"
    )]
    Name { name: String, reason: &'static str },
    #[error("{} exists already; give another directory with --path", .0.display())]
    Exists(PathBuf),
    #[error(
        "{} has no backend kit (backends/Cargo.toml); give a checkout of Outboard with --kit",
        path.display()
    )]
    Kit {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the kit's path {} cannot be written into a Makefile: it has one of {UNQUOTABLE} or is not \
         UTF-8; give the checkout by another path with --kit", .0.display()
    )]
    KitPath(PathBuf),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl NewBackendError {
    /// Whether something else has to be asked for.
    pub fn is_bad_usage(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }
}

/// Writes the crate; returns where it is.
pub fn run(args: &NewBackendArgs) -> Result<PathBuf, NewBackendError> {
    check_name(&args.name)?;
    let template = Template::of(args.device_type);
    let (kit, lock) = find_kit(&args.kit)?;
    let path = args.path.clone().unwrap_or_else(|| (&args.name).into());
    create(&path)?;
    let device_type = args.device_type.to_string();
    let values = [
        ("{{name}}", args.name.as_str()),
        ("{{type}}", device_type.as_str()),
        ("{{kit}}", kit.as_str()),
        ("{{run-options}}", template.run_options),
        ("{{test-options}}", template.test_options),
    ];
    for (name, text) in COMMON.iter().chain(&template.files) {
        let fill = |text: String, (key, value): &(&str, &str)| text.replace(key, value);
        let text = values.iter().fold(text.to_string(), fill);
        write(&path.join(name), &text)?;
    }
    // The versions that the kit is tested with. Cargo removes the packages that are not needed.
    write(&path.join("Cargo.lock"), &lock)?;
    Ok(path)
}

/// A file's path in the crate, and its text.
type File = (&'static str, &'static str);

const COMMON: [File; 7] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("Makefile", include_str!("template/Makefile.in")),
    ("README.md", include_str!("template/README.md.in")),
    (".gitignore", include_str!("template/gitignore")),
    (".github/workflows/ci.yml", include_str!("template/ci.yml")),
    ("src/main.rs", include_str!("template/main.rs")),
    ("tests/check.rs", include_str!("template/check.rs")),
];

/// What differs between types.
struct Template {
    files: [File; 2],
    /// Options of the program, each with a space behind it, under a guest and in tests.
    run_options: &'static str,
    test_options: &'static str,
}

impl Template {
    fn of(device_type: DeviceType) -> Self {
        let (device, test) = match device_type {
            DeviceType::BLK => (
                include_str!("template/blk.rs"),
                include_str!("template/blk_test.rs"),
            ),
            DeviceType::RNG => (
                include_str!("template/rng.rs"),
                include_str!("template/rng_test.rs"),
            ),
            _ => (
                include_str!("template/echo.rs"),
                include_str!("template/echo_test.rs"),
            ),
        };
        let (run_options, test_options) = match device_type {
            DeviceType::BLK => ("--path disk.img ", "--path test.img "),
            _ => ("", ""),
        };
        Self {
            files: [("src/device.rs", device), ("tests/device.rs", test)],
            run_options,
            test_options,
        }
    }
}

/// Names that cargo refuses, or that are those of the crate's dependencies.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "anyhow",
    "as",
    "async",
    "await",
    "backends",
    "become",
    "box",
    "break",
    "build",
    "clap",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "workbench",
    "yield",
];

fn check_name(name: &str) -> Result<(), NewBackendError> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let reason = if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        "it does not begin with a letter"
    } else if !name.chars().all(is_part) {
        "it has other characters"
    } else if RESERVED.contains(&name) {
        "it is a word of Rust or cargo, or the name of a crate that it uses"
    } else {
        return Ok(());
    };
    let name = name.to_owned();
    Err(NewBackendError::Name { name, reason })
}

/// Characters that end a quotation in one of the files, or mean something within it.
const UNQUOTABLE: &str = "' \" $ # \\ { }";

/// Where the kit is, and the versions that it uses.
fn find_kit(path: &Path) -> Result<(String, String), NewBackendError> {
    let found = path.canonicalize().and_then(|kit| {
        fs::metadata(kit.join("backends/Cargo.toml"))?;
        let lock = fs::read_to_string(kit.join("Cargo.lock"))?;
        Ok((kit, lock))
    });
    let (kit, lock) = found.map_err(|source| NewBackendError::Kit {
        path: path.to_owned(),
        source,
    })?;
    let is_quotable = |text: &&str| {
        let is_bad = |c: char| c.is_control() || (c != ' ' && UNQUOTABLE.contains(c));
        !text.contains(is_bad)
    };
    match kit.to_str().filter(is_quotable) {
        Some(text) => Ok((text.to_owned(), lock)),
        None => Err(NewBackendError::KitPath(kit)),
    }
}

fn create(path: &Path) -> Result<(), NewBackendError> {
    fs::create_dir(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => NewBackendError::Exists(path.to_owned()),
        _ => NewBackendError::Write {
            path: path.to_owned(),
            source,
        },
    })
}

fn write(path: &Path, text: &str) -> Result<(), NewBackendError> {
    let parent = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(path, text));
    written.map_err(|source| NewBackendError::Write {
        path: path.to_owned(),
        source,
    })
}
