//! End-to-end tests on Linux guests, and others that make tap devices. Where this
//! machine's KVM cannot run Linux, cargo's runner takes this program to the bed
//! (tests/bed).

mod boot;
mod clocks;
mod debugger;
mod debugger_libraries;
mod debugger_linux;
mod debugger_modules;
mod debugger_place;
mod debugger_stops;
mod debugger_types;
mod devices;
mod dump;
mod keyboard;
mod machine;
mod peers;
mod processor;
mod recording;
mod stepping;
mod storms;
mod sweep;
mod up;
