/* SPDX-License-Identifier: BSD-2-Clause */

/* lib/kern/hold.h: who is to stand stands, however soon after the last time. */

#include "kern/hold.h"
#include "race.h"

static struct hold hold;
static _Atomic unsigned steps;
static _Atomic bool enough;

static void
do_steps(void *arg)
{
	(void)arg;
	while (!enough) {
		hold_here(&hold);
		steps++;
		usleep(100);
	}
}

static void
do_hold(void *arg)
{
	(void)arg;
	if (!hold_begin(&hold))
		hold_wait(&hold);
}

static void
check_stands(void)
{
	unsigned before = steps;

	usleep(QUIET_MS * 1000);
	check(steps == before);
}

static void
end_steps(struct actor *walker)
{
	enough = true;
	hold_end(&hold);
	finish(walker);
	probe_hook = NULL;
}

START_TEST(it_stands_and_goes_on)
{
	struct actor walker;

	go(&walker, do_steps, NULL, "none");
	for (unsigned n = 0; n < 3; n++) {
		unsigned before;

		do_hold(NULL);
		check_stands();
		before = steps;
		do_hold(NULL);		/* again, while it stands */
		check(steps == before);
		hold_end(&hold);
		while (steps == before)
			usleep(100);
	}
	end_steps(&walker);
}
END_TEST

/* It has been let go, and has seen that, but not said so: the answer that is there is the last one's. */
START_TEST(the_next_hold_comes_before_it_goes_on)
{
	struct actor walker, holder;

	hold_begin(&hold);
	go(&walker, do_steps, NULL, "hold: looked");
	meet(&walker);
	release(&walker);
	hold_wait(&hold);
	walker.go = walker.stopped = false;	/* once more */
	hold_end(&hold);
	meet(&walker);
	go(&holder, do_hold, NULL, "none");
	check_waits(&holder);
	release(&walker);
	finish(&holder);
	check_stands();
	end_steps(&walker);
}
END_TEST

static char bed;

static void
do_naps(void *arg)
{
	(void)arg;
	while (!enough) {
		uint32_t ticket = event_prepare(&bed);

		hold_rest(&hold);
		(void)event_wait(&bed, ticket, EVENT_FOREVER);
		hold_rise(&hold);
		steps++;
	}
}

/* Who rests stands, without being woken; and does nothing when it is. */
START_TEST(who_rests_stands)
{
	struct actor sleeper;

	go(&sleeper, do_naps, NULL, "none");
	while (!hold.resting)
		usleep(100);
	check(hold_begin(&hold));
	event_wake(&bed);
	check_stands();
	hold_end(&hold);
	while (steps == 0)
		usleep(100);
	enough = true;
	while (!sleeper.ended) {
		event_wake(&bed);
		usleep(100);
	}
	end_steps(&sleeper);
}
END_TEST

/* Has just risen, and has not looked yet whether it is wanted: it does not rest any more. */
START_TEST(who_has_risen_does_not_rest)
{
	struct actor sleeper, holder;

	go(&sleeper, do_naps, NULL, "hold: risen");
	while (!hold.resting)
		usleep(100);
	event_wake(&bed);
	meet(&sleeper);
	go(&holder, do_hold, NULL, "none");
	check_waits(&holder);
	release(&sleeper);
	finish(&holder);
	check_stands();
	enough = true;
	hold_end(&hold);
	while (!sleeper.ended) {
		event_wake(&bed);
		usleep(100);
	}
	end_steps(&sleeper);
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "it stands", it_stands_and_goes_on, 1 },
		{ "one after another", the_next_hold_comes_before_it_goes_on, 1 },
		{ "who rests", who_rests_stands, 1 },
		{ "who has risen", who_has_risen_does_not_rest, 1 },
	};

	return run_races("kern/hold", races, nitems(races));
}
