//! Why `outboard up` and `outboard gdb` cannot do what was asked.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{} has no arch/x86/boot/bzImage: build it with `make bzImage`, or name a kernel image",
        tree.display()
    )]
    NotBuilt { tree: PathBuf },
    #[error(
        "there is no kernel {} of this host: name a kernel tree or image, as in `outboard up TREE`",
        path.display()
    )]
    NoHostKernel { path: PathBuf },
    #[error(
        "{}: its version cannot be told; it has to be a bzImage, or to lie in a kernel tree",
        path.display()
    )]
    NoVersion { path: PathBuf },
    #[error(
        "kernel {release} has {name} neither built in nor as a module below {}: set {option} in \
         its configuration",
        modules.display()
    )]
    NoModule {
        release: String,
        name: &'static str,
        option: &'static str,
        modules: PathBuf,
    },
    #[error("{} needs the module {name}, which is not below {}", path.display(), modules.display())]
    NoDependency {
        path: PathBuf,
        name: String,
        modules: PathBuf,
    },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a kernel module", path.display())]
    Module {
        path: PathBuf,
        #[source]
        source: object::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no program {name}: {advice}")]
    NoProgram {
        name: &'static str,
        advice: &'static str,
    },
    #[error(
        "{}: a shared directory has to be there, and to have a name in UTF-8 without a quote",
        path.display()
    )]
    NotShared { path: PathBuf },
    #[error("a machine is called {name:?}: a name has letters, digits, '.', '_' and '-' alone")]
    Name { name: String },
    #[error("a machine {name} runs already: choose another --name, or end it")]
    Taken { name: String },
    #[error(
        "{} belongs to somebody else, or others may write to it; set XDG_RUNTIME_DIR",
        path.display()
    )]
    NotPrivate { path: PathBuf },
    #[error("no machine {name} runs; these do: {}", listed(running))]
    NoMachine { name: String, running: Vec<String> },
    #[error("which machine? These run: {}", listed(running))]
    Which { running: Vec<String> },
    #[error(
        "this host's KVM is {module}, which cannot run Linux; kvm_intel and kvm_amd can, in the \
         emulated machine of `tests/bed/run` too"
    )]
    CannotRunLinux { module: String },
    #[error("the guest ended before its command did")]
    NoAnswer,
    #[error(
        "machine {name} has no further shells: they need vhost-device-vsock in PATH when it starts, \
         and a kernel with CONFIG_VIRTIO_VSOCKETS"
    )]
    NoShells { name: String },
    #[error("cannot reach the guest of machine {name}")]
    Guest {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {program}")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}
