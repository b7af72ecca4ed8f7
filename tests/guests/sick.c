// SPDX-License-Identifier: MIT
/*
 * Makes a guest sick on purpose, in the way that `how` names.
 *
 * One function a sickness, and one table that names them. Most never return. Built out of tree
 * against the headers of the kernel that is to be made sick; see Makefile and guests.toml.
 */
#define pr_fmt(fmt) "sick: " fmt

#include <linux/cpumask.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/suspend.h>
#include <asm/desc.h>

static char *how = "";
module_param(how, charp, 0444);
MODULE_PARM_DESC(how, "the sickness, by its name in the table of sick.c");

static uint cpu;
module_param(cpu, uint, 0444);
MODULE_PARM_DESC(cpu, "the CPU that falls sick first");

static uint seconds;
module_param(seconds, uint, 0444);
MODULE_PARM_DESC(seconds, "how long a sickness lasts that can pass; 0 for ever");

/* Continues on the CPU that the parameter names. */
static void go_to_sick_cpu(void)
{
	if (cpu_online(cpu))
		set_cpus_allowed_ptr(current, cpumask_of(cpu));
}

static bool over(unsigned long began)
{
	return seconds && time_after(jiffies, began + seconds * HZ);
}

static void spin_irqs_off(void)
{
	go_to_sick_cpu();
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static void spin_here(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static void spin_all_irqs_off(void)
{
	smp_call_function(spin_here, NULL, 0);
	spin_here(NULL);
}

/* The loop of a driver that polls a register which never changes. */
static void poll_register(void)
{
	static u32 status;

	go_to_sick_cpu();
	local_irq_disable();
	while (!READ_ONCE(status))
		udelay(10);
}

static DEFINE_SPINLOCK(lock_a);
static DEFINE_SPINLOCK(lock_b);
static atomic_t holders = ATOMIC_INIT(0);

static void take_both(spinlock_t *first, spinlock_t *second)
{
	spin_lock_irq(first);
	atomic_inc(&holders);
	/* Both hold their first lock before either asks for its second. */
	while (atomic_read(&holders) < 2)
		cpu_relax();
	spin_lock(second);
}

static int take_b_then_a(void *unused)
{
	take_both(&lock_b, &lock_a);
	return 0;
}

static void abba(void)
{
	struct task_struct *other = kthread_create(take_b_then_a, NULL, "sick-ba");

	if (IS_ERR(other))
		return;
	kthread_bind(other, !cpu);
	go_to_sick_cpu();
	wake_up_process(other);
	take_both(&lock_a, &lock_b);
}

static bool answered;

static void answer(void *unused)
{
	WRITE_ONCE(answered, true);
}

static void die_here(void *unused)
{
	local_irq_disable();
	for (;;)
		asm volatile("cli; hlt" : : : "memory");
}

static void wait_for_dead_cpu(void)
{
	static call_single_data_t request = CSD_INIT(answer, NULL);
	unsigned int dead;

	go_to_sick_cpu();
	get_cpu();
	dead = cpumask_any_but(cpu_online_mask, smp_processor_id());
	if (dead >= nr_cpu_ids)
		return;
	smp_call_function_single(dead, die_here, NULL, 0);
	mdelay(10);
	local_irq_disable();
	smp_call_function_single_async(dead, &request);
	while (!READ_ONCE(answered))
		cpu_relax();
}

static void halt_all(void)
{
	smp_call_function(die_here, NULL, 0);
	die_here(NULL);
}

static void null_dereference(void)
{
	*(volatile int *)8 = 1;
}

/* The kernel lives on after this oops, but whoever needs the lock waits for ever. */
static void null_dereference_with_lock(void)
{
	lock_system_sleep();
	null_dereference();
}

static void null_in_interrupt(void *unused)
{
	null_dereference();
}

static void null_dereference_in_interrupt(void)
{
	get_cpu();
	smp_call_function_single(cpumask_any_but(cpu_online_mask, smp_processor_id()),
				 null_in_interrupt, NULL, 1);
	put_cpu();
}

static void bug(void)
{
	BUG();
}

static void warn(void)
{
	WARN(1, "sick: a warning\n");
}

static noinline u64 deeper(u64 depth)
{
	volatile u64 frame[64];

	if (depth == U64_MAX)
		return 0;
	frame[depth % 64] = depth;
	return deeper(depth + 1) + frame[(depth + 1) % 64];
}

static void stack_overflow(void)
{
	pr_info("depth %llu\n", deeper(1));
}

static void triple_fault(void)
{
	const struct desc_ptr none = { .size = 0, .address = 0 };

	local_irq_disable();
	load_idt(&none);
	asm volatile("int3");
}

static void do_panic(void)
{
	panic("sick: a panic");
}

static void hung_task(void)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
}

static void hung_mutex(void)
{
	static DEFINE_MUTEX(mutex);

	mutex_lock(&mutex);
	mutex_lock(&mutex);
}

static void soft_lockup(void)
{
	unsigned long began;

	go_to_sick_cpu();
	preempt_disable();
	began = jiffies;
	while (!over(began))
		cpu_relax();
	preempt_enable();
}

/* Sleeps where nobody may sleep: no grace period ends before this section does. */
static void rcu_stall(void)
{
	unsigned long began = jiffies;

	rcu_read_lock();
	if (!seconds)
		hung_task();
	while (!over(began))
		schedule_timeout_uninterruptible(HZ);
	rcu_read_unlock();
}

static void console_flood(void)
{
	unsigned long began = jiffies;
	u64 line = 0;

	while (!over(began)) {
		pr_emerg("line %llu of a flood that says the same thing again and again\n", line++);
		cond_resched();
	}
}

static void reset(void)
{
	emergency_restart();
}

static int spin_at_shutdown(struct notifier_block *block, unsigned long code, void *data)
{
	pr_info("notified\n");
	spin_irqs_off();
	return NOTIFY_DONE;
}

static int sleep_at_shutdown(struct notifier_block *block, unsigned long code, void *data)
{
	pr_info("notified\n");
	hung_task();
	return NOTIFY_DONE;
}

static int oops_at_shutdown(struct notifier_block *block, unsigned long code, void *data)
{
	pr_info("notified\n");
	null_dereference();
	return NOTIFY_DONE;
}

static int slow_shutdown(struct notifier_block *block, unsigned long code, void *data)
{
	pr_info("notified\n");
	msleep(seconds * MSEC_PER_SEC);
	return NOTIFY_DONE;
}

static struct notifier_block notifier;

static void at_shutdown(int (*call)(struct notifier_block *, unsigned long, void *))
{
	notifier.notifier_call = call;
	register_reboot_notifier(&notifier);
}

static void shutdown_spin(void)
{
	at_shutdown(spin_at_shutdown);
}

static void shutdown_sleep(void)
{
	at_shutdown(sleep_at_shutdown);
}

static void shutdown_oops(void)
{
	at_shutdown(oops_at_shutdown);
}

static void shutdown_slow(void)
{
	at_shutdown(slow_shutdown);
}

/* Healthy, and looks sick: nothing happens for a while, and then the guest goes on. */
static void sleep_long(void)
{
	msleep(seconds * MSEC_PER_SEC);
}

static const struct {
	const char *name;
	void (*make)(void);
} sicknesses[] = {
	{ "spin-irqs-off", spin_irqs_off },
	{ "spin-all-irqs-off", spin_all_irqs_off },
	{ "poll-register", poll_register },
	{ "abba", abba },
	{ "wait-for-dead-cpu", wait_for_dead_cpu },
	{ "halt-all", halt_all },
	{ "null", null_dereference },
	{ "null-with-lock", null_dereference_with_lock },
	{ "null-in-interrupt", null_dereference_in_interrupt },
	{ "bug", bug },
	{ "warn", warn },
	{ "stack-overflow", stack_overflow },
	{ "triple-fault", triple_fault },
	{ "panic", do_panic },
	{ "hung-task", hung_task },
	{ "hung-mutex", hung_mutex },
	{ "soft-lockup", soft_lockup },
	{ "rcu-stall", rcu_stall },
	{ "console-flood", console_flood },
	{ "reset", reset },
	{ "shutdown-spin", shutdown_spin },
	{ "shutdown-sleep", shutdown_sleep },
	{ "shutdown-oops", shutdown_oops },
	{ "shutdown-slow", shutdown_slow },
	{ "sleep", sleep_long },
};

static int __init sick_init(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sicknesses); i++) {
		if (strcmp(sicknesses[i].name, how))
			continue;
		pr_info("%s\n", how);
		sicknesses[i].make();
		return 0;
	}
	pr_err("no sickness is called '%s'\n", how);
	return -EINVAL;
}
module_init(sick_init);

MODULE_DESCRIPTION("Makes a guest sick on purpose, to test what watches it");
MODULE_LICENSE("Dual MIT/GPL");
