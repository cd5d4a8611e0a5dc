/* What the parts of `rebind` share. */
#pragma once

#include <semaphore.h>

/*
 * Of each kind of device: I/O until some fails, each of which posts `begun`; and whether
 * the device serves a driver that is new.
 */
void block_work(void);
void block_check(void);
void console_work(void);
void console_check(void);
void entropy_work(void);
void entropy_check(void);
void files_work(void);
void files_check(void);
void network_work(void);
void network_check(void);
void stream_work(void);
void stream_check(void);

/* What stands behind the cycles, up to a NULL. */
void files_configure(char **arguments);
void network_configure(char **arguments);
void stream_configure(char **arguments);

extern sem_t begun;

/* Ends the program, with the reason in errno. */
void fail(const char *what);

/* The result of a system call, or the end. */
int must(int result, const char *what);
