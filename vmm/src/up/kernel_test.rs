use super::*;

fn bzimage(version: &str) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x20e..0x210].copy_from_slice(&0x40_u16.to_le_bytes());
    image[0x240..0x240 + version.len()].copy_from_slice(version.as_bytes());
    image
}

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_tree_and_its_image_are_the_same_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().canonicalize().unwrap();
    let error = Kernel::find(Some(&tree)).unwrap_err().to_string();
    assert!(error.contains("make bzImage"), "{error}");
    let image = write(tree.join(BZIMAGE), bzimage("6.9.0 (x@y)"));
    write(tree.join(RELEASE), "6.9.0-dirty\n");
    let vmlinux = write(tree.join(VMLINUX), "");
    let expected = Kernel {
        image: image.clone(),
        release: "6.9.0-dirty".into(),
        modules: Modules::Tree(tree.clone()),
        vmlinux: Some(vmlinux),
    };
    assert_eq!(Kernel::find(Some(&tree)).unwrap(), expected);
    assert_eq!(Kernel::find(Some(&image)).unwrap(), expected);
}

#[test]
fn an_image_alone_has_the_modules_of_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let image = write(root.join("boot/vmlinuz"), bzimage("6.1.0-1-amd64 (d@d) #1"));
    let find = || Kernel::find(Some(&image)).unwrap();
    assert_eq!(
        find().modules,
        Modules::Installed("/lib/modules/6.1.0-1-amd64".into())
    );
    let modules = root.join("lib/modules/6.1.0-1-amd64");
    fs::create_dir_all(&modules).unwrap();
    let kernel = find();
    assert_eq!(kernel.release, "6.1.0-1-amd64");
    assert_eq!(kernel.modules, Modules::Installed(modules));
}

#[test]
fn what_is_no_kernel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [bzimage("../../etc"), bzimage("text"), vec![0; 0x400]] {
        let path = write(dir.path().join("image"), bytes);
        let error = Kernel::find(Some(&path)).unwrap_err();
        assert!(matches!(error, Error::NoVersion { .. }), "{error}");
    }
    let path = write(dir.path().join("image"), "short");
    assert!(matches!(Kernel::find(Some(&path)), Err(Error::Read { .. })));
}
