/*
 * What a program sees of exceptions, which a debugger beside the machine must not
 * change.
 *
 *   exceptions steps   steps a child through code of its own by PTRACE_SINGLESTEP, and
 *                      prints how many steps that took: the same number every time
 *   exceptions check   looks at the flags that a program can find saved, in every way
 *                      that there is, and at its own int3 and int1; prints
 *                      `leaks=N traps=N places=OFFSETS`, the offsets of all RIPs
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG	0x100
#define ROUNDS		200
#define PAGES		64
#define PAGE		4096

static int leaks, traps;
static long places;

extern char traps_begin[];
/* Behind the access that faults. */
extern char fault_ends[];

/* The child stops itself, runs, and ends: all without a library. */
static void be_stepped(void)
{
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	__asm__ volatile(
		"	movl $39, %%eax\n"		/* getpid */
		"	syscall\n"
		"	movl %%eax, %%edi\n"
		"	movl $19, %%esi\n"		/* SIGSTOP */
		"	movl $62, %%eax\n"		/* kill */
		"	syscall\n"
		"	movl $400, %%ecx\n"
		"1:	pushfq\n"
		"	popq %%rax\n"
		"	decl %%ecx\n"
		"	jnz 1b\n"
		"	movl $39, %%eax\n"
		"	syscall\n"
		"	xorl %%edi, %%edi\n"
		"	movl $60, %%eax\n"		/* exit */
		"	syscall\n"
		:
		:
		: "rax", "rcx", "rdi", "rsi", "r11", "memory");
}

static int steps(void)
{
	int status, count = 0;
	pid_t child = fork();

	if (child == 0)
		be_stepped();
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		return 1;
	for (;;) {
		if (ptrace(PTRACE_SINGLESTEP, child, 0, 0) || waitpid(child, &status, 0) != child)
			return 1;
		if (WIFEXITED(status))
			break;
		if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
			return 1;
		count++;
	}
	printf("%d\n", count);
	return WEXITSTATUS(status);
}

static void note(unsigned long flags)
{
	if (flags & TRAP_FLAG)
		leaks++;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)signal;
	(void)info;
	note(registers[REG_EFL]);
	registers[REG_RIP] = (greg_t)fault_ends;
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	long rip = registers[REG_RIP];

	(void)signal;
	(void)info;
	note(registers[REG_EFL]);
	traps++;
	places += rip - (long)traps_begin;
}

static void catch(int signal, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	sigaction(signal, &action, NULL);
}

static void save_flags(void)
{
	unsigned long flags;

	__asm__ volatile("pushfq; popq %0" : "=r"(flags) : : "memory");
	note(flags);
	__asm__ volatile("syscall; movq %%r11, %0"
			 : "=r"(flags)
			 : "a"(39l)
			 : "rcx", "r11", "memory");
	note(flags);
}

/* New pages, one after the other. */
static void fault_in(void)
{
	volatile char *pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		return;
	for (int n = 0; n < PAGES; n++)
		pages[n * PAGE] = n;
	munmap((void *)pages, PAGES * PAGE);
}

/* An access that nothing can make good. */
static void fault(void)
{
	__asm__ volatile("movb $0, 8; fault_ends:" : : : "memory");
}

static void trap(void)
{
	__asm__ volatile("traps_begin: int3; nop; .byte 0xf1; nop");
}

static int check(void)
{
	catch(SIGSEGV, on_fault);
	catch(SIGTRAP, on_trap);
	for (int round = 0; round < ROUNDS; round++) {
		save_flags();
		if (round % 10)
			continue;
		fault_in();
		fault();
		trap();
	}
	printf("leaks=%d traps=%d places=%ld\n", leaks, traps, places);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "steps"))
		return steps();
	if (argc == 2 && !strcmp(argv[1], "check"))
		return check();
	fprintf(stderr, "usage: exceptions steps|check\n");
	return 2;
}
