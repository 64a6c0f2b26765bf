// Command tollkeeper is the server that Envoy asks, and the tool that operates it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run is main as a function, so that transcripts can call it. It returns the exit code: 0, 1 if what was asked could not
// be done, 2 if it could not be understood. Commands that judge have codes of their own, which their help tells.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := newRoot()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(os.Stderr, "tollkeeper: %v\n", err)
		return 2
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintf(os.Stderr, "tollkeeper: %v\n", err)
	}
	return 1
}
