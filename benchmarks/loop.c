/* The yardstick: `loop TRIALS SLOTS COMMAND...` runs COMMAND --i=0, --i=1, ... with posix_spawn, SLOTS at a
 * time, and keeps nothing. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: loop TRIALS SLOTS COMMAND...\n");
        return 2;
    }
    int trials = atoi(argv[1]), slots = atoi(argv[2]), started = 0, running = 0, failed = 0;
    char parameter[32];
    char **command = calloc(argc, sizeof *command); /* argv[3..], the parameter, NULL */
    memcpy(command, argv + 3, (argc - 3) * sizeof *command);
    command[argc - 3] = parameter;
    while (started < trials || running > 0) {
        if (started < trials && running < slots) {
            pid_t pid;
            snprintf(parameter, sizeof parameter, "--i=%d", started++);
            if (posix_spawn(&pid, command[0], NULL, NULL, command, environ) != 0) {
                perror(command[0]);
                return 1;
            }
            running++;
            continue;
        }
        int status;
        if (wait(&status) < 0 && errno != EINTR) return 1;
        if (status != 0) failed++;
        running--;
    }
    return failed > 0;
}
