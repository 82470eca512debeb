/*-------------------------------------------------------------------------
 *
 * crew.c
 *	  Many sessions at once: a thread for each, all at the same task for the
 *	  same time, again and again.
 *
 * Between two runs the workers wait at a barrier; the task and the counters
 * are only changed then, by the thread that calls crew_run().
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "bench.h"

struct Crew
{
	int			nworkers;
	Worker	   *workers;
	pthread_t  *threads;
	pthread_barrier_t begin;
	pthread_barrier_t end;
	CrewTask	task;			/* NULL: go home */
	atomic_bool time_is_up;
};

static void *
work(void *arg)
{
	Worker	   *worker = arg;
	Crew	   *crew = worker->crew;

	for (;;)
	{
		pthread_barrier_wait(&crew->begin);
		if (crew->task == NULL)
			return NULL;
		do
		{
			crew->task(worker);
			worker->done++;
		}
		while (!atomic_load_explicit(&crew->time_is_up, memory_order_relaxed));
		pthread_barrier_wait(&crew->end);
	}
}

Crew *
crew_start(int nworkers)
{
	Crew	   *crew = allocate(sizeof(Crew));

	crew->nworkers = nworkers;
	crew->workers = allocate(nworkers * sizeof(Worker));
	crew->threads = allocate(nworkers * sizeof(pthread_t));
	pthread_barrier_init(&crew->begin, NULL, nworkers + 1);
	pthread_barrier_init(&crew->end, NULL, nworkers + 1);
	for (int i = 0; i < nworkers; i++)
	{
		crew->workers[i].crew = crew;
		crew->workers[i].number = i;
		crew->workers[i].random = 88172645463325252u + 7919u * i;
		if (pthread_create(&crew->threads[i], NULL, work,
						   &crew->workers[i]) != 0)
			die("cannot start a thread");
	}
	return crew;
}

Worker *
crew_worker(Crew *crew, int number)
{
	return &crew->workers[number];
}

double
crew_run(Crew *crew, CrewTask task, double ms)
{
	struct timespec pause = {(time_t) (ms / 1000),
	(long) (ms * 1e6) % 1000000000L};
	double		began;

	for (int i = 0; i < crew->nworkers; i++)
	{
		Worker	   *worker = &crew->workers[i];

		worker->done = worker->reads = worker->on_replica = 0;
		worker->timeouts = worker->refused = 0;
	}
	crew->task = task;
	atomic_store(&crew->time_is_up, false);
	pthread_barrier_wait(&crew->begin);
	began = now_ms();
	nanosleep(&pause, NULL);
	atomic_store(&crew->time_is_up, true);
	pthread_barrier_wait(&crew->end);
	return now_ms() - began;
}

void
crew_stop(Crew *crew)
{
	crew->task = NULL;
	pthread_barrier_wait(&crew->begin);
	for (int i = 0; i < crew->nworkers; i++)
		pthread_join(crew->threads[i], NULL);
	pthread_barrier_destroy(&crew->begin);
	pthread_barrier_destroy(&crew->end);
	free(crew->workers);
	free(crew->threads);
	free(crew);
}

/* xorshift: a worker's own, so that no thread waits for another's numbers */
uint32_t
worker_random(Worker *worker, uint32_t below)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 7;
	worker->random ^= worker->random << 17;
	return (uint32_t) (worker->random >> 32) % below;
}
