use std::fs;

use super::*;

const VIRTIOFS: Driver = Driver {
    name: "virtiofs",
    option: "CONFIG_VIRTIO_FS",
};
const OVERLAY: Driver = Driver {
    name: "overlay",
    option: "CONFIG_OVERLAY_FS",
};

/// A kernel whose files have these contents.
fn kernel(modules: fn(PathBuf) -> Modules, files: &[(&str, &str)]) -> (tempfile::TempDir, Kernel) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let kernel = Kernel {
        image: dir.path().join("bzImage"),
        release: "6.1.0".into(),
        modules: modules(dir.path().to_owned()),
        vmlinux: None,
    };
    (dir, kernel)
}

fn resolved(kernel: &Kernel, drivers: &[Driver]) -> Result<Vec<String>, Error> {
    let files = Index::read(kernel)?.resolve(drivers)?;
    let names = files
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap());
    Ok(names.map(str::to_owned).collect())
}

#[test]
fn installed_modules_come_behind_what_they_need() {
    let dep = "kernel/fs/fuse/virtiofs.ko.xz: kernel/fs/fuse/fuse.ko.xz kernel/lib/crc.ko.xz\n\
               kernel/fs/fuse/fuse.ko.xz: kernel/lib/crc.ko.xz\n\
               kernel/lib/crc.ko.xz:\n";
    let files = [
        ("modules.dep", dep),
        ("modules.builtin", "kernel/fs/overlayfs/overlay.ko\n"),
    ];
    let (_dir, kernel) = kernel(Modules::Installed, &files);
    let names = resolved(&kernel, &[OVERLAY, VIRTIOFS]).unwrap();
    assert_eq!(names, ["crc.ko.xz", "fuse.ko.xz", "virtiofs.ko.xz"]);
}

#[test]
fn a_driver_that_is_not_there_is_named_with_its_option() {
    let (_dir, kernel) = kernel(Modules::Installed, &[("modules.dep", "")]);
    let error = resolved(&kernel, &[OVERLAY]).unwrap_err().to_string();
    assert!(error.contains("CONFIG_OVERLAY_FS"), "{error}");
}

#[test]
fn a_tree_may_list_objects_and_its_modules_say_what_they_need() {
    let (dir, kernel) = kernel(
        Modules::Tree,
        &[("modules.order", "fs/fuse/fuse.o\nfs/virtio-fs.ko\n")],
    );
    write_module(&dir.path().join("fs/fuse/fuse.ko"), "depends=\0");
    write_module(
        &dir.path().join("fs/virtio-fs.ko"),
        "license=GPL\0depends=fuse\0name=virtio_fs\0",
    );
    let driver = Driver {
        name: "virtio_fs",
        option: "CONFIG_VIRTIO_FS",
    };
    assert_eq!(
        resolved(&kernel, &[driver]).unwrap(),
        ["fuse.ko", "virtio-fs.ko"]
    );
}

#[test]
fn modules_that_need_each_other_end() {
    let dep = "a.ko: overlay.ko\noverlay.ko: a.ko\n";
    let (_dir, kernel) = kernel(Modules::Installed, &[("modules.dep", dep)]);
    assert_eq!(
        resolved(&kernel, &[OVERLAY]).unwrap(),
        ["a.ko", "overlay.ko"]
    );
}

/// An object file with this section .modinfo.
fn write_module(path: &Path, modinfo: &str) {
    use object::write::Object;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    let mut file = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let section = file.add_section(Vec::new(), b".modinfo".to_vec(), SectionKind::ReadOnlyData);
    file.append_section_data(section, modinfo.as_bytes(), 1);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, file.write().unwrap()).unwrap();
}
