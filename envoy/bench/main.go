package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	rounds     int
	seconds    float64
	keys       int // in the large set
	callers    int // of the trials
	rest       time.Duration
	stalls     bool
	evaluators bool
	answers    bool
	envoy      bool
	only       string
	binary     string
	markdown   string
	svg        string

	serve, data string // of a rival that this program started
}

func main() {
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2) // flag has printed the error
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	switch {
	case o.serve != "":
		err = serve(ctx, o.serve, o.data)
	case o.evaluators:
		err = compareEvaluators(ctx, o, os.Stdout)
	default:
		err = run(ctx, o)
	}
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 3, "how many turns each rival gets; 60 with -answers")
	f.Float64Var(&o.seconds, "seconds", 3, "how long a rival is measured in a turn, after a second of warm-up; 0.02 with -evaluators, 0.15 with -answers")
	f.IntVar(&o.keys, "keys", 1_000_000, "keys in the large set")
	f.IntVar(&o.callers, "callers", 200_000, "callers of the loads "+trialNames())
	f.DurationVar(&o.rest, "rest", time.Minute, "how long a server may take to come to rest after a visit of all callers; 0: it need not")
	f.BoolVar(&o.envoy, "envoy", true, "also measure requests through Envoy")
	f.StringVar(&o.only, "only", "", "run only these rivals and loads, such as noop,tollkeeper,street; with -evaluators: only rows whose name has one of these texts")
	f.StringVar(&o.binary, "tollkeeper", "bin/tollkeeper", "the binary to run")
	f.StringVar(&o.markdown, "markdown", "", "also write the tables to this `file`, as Markdown")
	f.StringVar(&o.svg, "svg", "", "also draw the server CPU per check into this `file`")
	f.BoolVar(&o.answers, "answers", false, "only measure what each part of Tollkeeper's answer costs through Envoy")
	f.BoolVar(&o.stalls, "stalls", false, "only measure how much reloads, writes and a slow policy delay other checks")
	f.BoolVar(&o.evaluators, "evaluators", false, "only compare OPA's evaluator with compiled programs: processor time and allocations of decisions")
	quick := f.Bool("quick", false, "only try whether it works: 1 round of half a second, 10,000 callers, 10,000 keys in the large set, no rest; with -evaluators: few decisions")
	f.StringVar(&o.serve, "serve", "", "run as this rival; the program starts itself with it")
	f.StringVar(&o.data, "data", "", "the `file` with the rival's data")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	given := make(map[string]bool)
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range defaults(&o, *quick) {
		if !given[name] {
			_ = f.Set(name, value)
		}
	}
	switch {
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1, o.seconds <= 0, o.keys < 1, o.callers < 1:
		err = errors.New("-rounds, -seconds, -keys and -callers must be more than 0")
	case o.rest < 0:
		err = errors.New("-rest must not be negative")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	}
	return o, err
}

// defaults are the values of flags that are not given, if they differ from those of the flag set.
func defaults(o *options, quick bool) map[string]string {
	switch {
	case o.answers && quick:
		return map[string]string{"rounds": "1", "seconds": "0.05"}
	case o.answers:
		return map[string]string{"rounds": "60", "seconds": "0.15"}
	case o.evaluators && quick:
		return map[string]string{"rounds": "1", "seconds": "0.0005"}
	case o.evaluators:
		return map[string]string{"rounds": "5", "seconds": "0.02"}
	case quick:
		return map[string]string{"rounds": "1", "seconds": "0.5", "keys": "10000", "callers": "10000", "rest": "0"}
	}
	return nil
}

func (o options) span() span {
	measured := time.Duration(o.seconds * float64(time.Second))
	return span{warmUp: min(time.Second, measured), measured: measured}
}

// run measures everything and reports it.
func run(ctx context.Context, o options) (err error) {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("processor time is read from /proc, which %s does not have", runtime.GOOS)
	}
	// The rivals inherit the environment, and are compared with their default settings.
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "TOLLKEEPER_") {
			_ = os.Unsetenv(name)
		}
	}
	debug.SetGCPercent(800) // for the client, which shares the processors with the servers
	r := report{date: time.Now(), machine: machine(), options: o}
	dir, err := os.MkdirTemp("", "tollkeeper-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.stalls {
		return stalls(ctx, o, dir, os.Stdout)
	}
	if o.answers {
		return compareAnswers(ctx, o, dir)
	}
	sessions, err := prepare(ctx, o, dir)
	defer func() {
		for _, one := range sessions {
			err = errors.Join(err, one.close())
		}
	}()
	if err != nil {
		return err
	}
	if r.direct, err = compare(ctx, sessions, o.rounds, o.span()); err != nil {
		return err
	}
	if o.envoy {
		r.envoy, err = compareThroughEnvoy(ctx, sessions, o.rounds, o.span())
	}
	return errors.Join(r.publish(), r.denials(), err) // an error of the Envoy part does not hide the rest
}
