/*
 * The application of README.md over examples/libpq.c, or with -DPIPELINE over
 * examples/libpq_pipeline.c, which are taken in as they stand.
 */
#define main recipe_main
#ifdef PIPELINE
#include "libpq_pipeline.c"
#else
#include "libpq.c"
#endif
#undef main

static int
patch(TokenSet *set, int user, int value, char *state)
{
	char		sql[200];

	snprintf(sql, sizeof(sql),
			 "UPDATE profiles SET version = %d WHERE id = %d RETURNING version", value, user);
#ifdef PIPELINE
	return write_number(set, "SELECT 1", sql, state);
#else
	return write_number(set, sql, state);
#endif
}

static int
get(TokenSet *set, int user, int turn, char *state)
{
	char		sql[200];

#ifdef PIPELINE
	snprintf(sql, sizeof(sql), "SELECT version FROM profiles WHERE id = %d", user);
	return read_number(set, "SELECT 1 WHERE ryw_require($1, $2)", sql, turn, state);
#else
	snprintf(sql, sizeof(sql),
			 "SELECT version FROM profiles WHERE id = %d AND ryw_require($1, $2)", user);
	return read_number(set, sql, turn, state);
#endif
}

int
main(int argc, char **argv)
{
	char		line[2000];

	if (getenv("COUNT"))		/* as it stands */
		return recipe_main(argc, argv);
	setlinebuf(stdout);
	for (nodes = 0; nodes < argc - 1 && nodes < 16; nodes++)
		node[nodes] = PQconnectdb(argv[nodes + 1]);
	printf("ready %d.%d\n", PQlibVersion() / 10000, PQlibVersion() % 10000);
	for (int turn = 0; fgets(line, sizeof(line), stdin); turn++)
	{
		char		id[20],
					op[20],
					user[20],
					tokens[1000],
					value[20],
					state[6] = "";
		TokenSet	set = {0};
		int			seen = 0;

		if (sscanf(line, "%19s %19s %19s %999s %19s", id, op, user, tokens, value) != 5)
			return 1;
		for (char *token = strtok(tokens, "."); token; token = strtok(NULL, "."))
			keep(&set, token);
		if (strcmp(op, "patch") == 0)
			seen = patch(&set, atoi(user), atoi(value), state);
		else if (strcmp(op, "get") == 0)
			seen = get(&set, atoi(user), turn, state);
		strcpy(tokens, set.count ? joined(&set) : "-");
		if (strcmp(op, "stats") == 0)
			printf("%s ok %d/%d -\n", id, fallbacks, on_primary);
		else if (strcmp(op, "idle") == 0)
			printf("%s none - -\n", id);
		else if (seen == -2)
			printf("%s lost - %s\n", id, tokens);
		else if (seen < 0)
			printf("%s error %s %s\n", id, *state ? state : "?", tokens);
		else
			printf("%s ok %d %s\n", id, seen, tokens);
	}
	return 0;
}
