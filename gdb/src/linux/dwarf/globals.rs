//! Variables that people and scripts look at, with the types that they have had since
//! before there was BTF. BTF itself tells those of per-CPU variables alone, unless the
//! kernel was built with `global_var`.

use crate::linux::btf::Btf;
use crate::linux::btf::types::Number;

pub(super) struct Global {
    pub name: &'static str,
    of: Kind,
}

enum Kind {
    Struct(&'static str),
    Int(&'static str),
}

use Kind::{Int, Struct};

pub(super) const GLOBALS: &[Global] = &[
    global("init_task", Struct("task_struct")),
    global("init_mm", Struct("mm_struct")),
    global("init_net", Struct("net")),
    global("init_nsproxy", Struct("nsproxy")),
    global("init_pid_ns", Struct("pid_namespace")),
    global("init_uts_ns", Struct("uts_namespace")),
    global("init_user_ns", Struct("user_namespace")),
    global("init_cred", Struct("cred")),
    global("init_files", Struct("files_struct")),
    global("init_fs", Struct("fs_struct")),
    global("init_css_set", Struct("css_set")),
    global("boot_cpu_data", Struct("cpuinfo_x86")),
    global("iomem_resource", Struct("resource")),
    global("ioport_resource", Struct("resource")),
    global("modules", Struct("list_head")),
    global("super_blocks", Struct("list_head")),
    global("net_namespace_list", Struct("list_head")),
    global("slab_caches", Struct("list_head")),
    global("vmap_area_list", Struct("list_head")),
    global("__cpu_online_mask", Struct("cpumask")),
    global("__cpu_possible_mask", Struct("cpumask")),
    global("__cpu_present_mask", Struct("cpumask")),
    global("jiffies", Int("long unsigned int")),
    global("jiffies_64", Int("long long unsigned int")),
    global("nr_cpu_ids", Int("unsigned int")),
    global("panic_timeout", Int("int")),
    global("page_offset_base", Int("long unsigned int")),
    global("vmalloc_base", Int("long unsigned int")),
    global("vmemmap_base", Int("long unsigned int")),
    global("phys_base", Int("long unsigned int")),
];

const fn global(name: &'static str, of: Kind) -> Global {
    Global { name, of }
}

/// The type of a variable, if this kernel has it.
pub(super) fn type_of(btf: &Btf, global: &Global) -> Option<Number> {
    match global.of {
        Struct(name) => btf.structure_number(name),
        Int(name) => btf.int_number(name),
    }
}
