package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog"
)

// dial connects to the server on the socket grpc.sock of a script.
func dial(ts *testscript.TestScript) (authv3.AuthorizationClient, func()) {
	conn, err := grpc.NewClient("unix:"+ts.MkAbs("grpc.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	return authv3.NewAuthorizationClient(conn), func() { _ = conn.Close() }
}

// checkOnce sends a check of a key, and reports whether it was allowed.
func checkOnce(c authv3.AuthorizationClient, key string) (allowed bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resp, err := c.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/v1/x", Headers: map[string]string{"x-api-key": key}},
	}}})
	return err == nil && resp.GetStatus().GetCode() == 0 && resp.GetOkResponse() != nil, err
}

// charge sends checks that must all be allowed: charge key n.
func charge(ts *testscript.TestScript, _ bool, args []string) {
	c, hangUp := dial(ts)
	defer hangUp()
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for i := range n {
		if allowed, err := checkOnce(c, args[0]); err != nil || !allowed {
			ts.Fatalf("check %d was not allowed: %v", i, err)
		}
	}
}

// awaitRefused waits until a key is refused: refused key.
func awaitRefused(ts *testscript.TestScript, _ bool, args []string) {
	c, hangUp := dial(ts)
	defer hangUp()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if allowed, err := checkOnce(c, args[0]); err == nil && !allowed {
			return
		}
	}
	ts.Fatalf("the key is still allowed")
}

// load is checks that are sent until the server is gone.
type load struct {
	allowed atomic.Int64
	wg      sync.WaitGroup
}

// loads holds the loads of all running scripts, by key.
var loads sync.Map

// startCharging sends checks of a key until the server is gone: charging key.
func startCharging(ts *testscript.TestScript, _ bool, args []string) {
	l := new(load)
	loads.Store(args[0], l)
	for range 8 {
		c, hangUp := dial(ts)
		l.wg.Go(func() {
			defer hangUp()
			for range time.Tick(time.Millisecond) {
				allowed, err := checkOnce(c, args[0])
				if err != nil {
					return
				}
				if allowed {
					l.allowed.Add(1)
				}
			}
		})
	}
}

// awaitCharged waits until the server is gone, and sets a variable to how many checks it had allowed: charged VAR key.
func awaitCharged(ts *testscript.TestScript, _ bool, args []string) {
	l, _ := loads.Load(args[1])
	l.(*load).wg.Wait()
	ts.Setenv(args[0], fmt.Sprint(l.(*load).allowed.Load()))
}

// awaitSpan waits until a decision log is about at least that time: awaitspan file 1s.
func awaitSpan(ts *testscript.TestScript, _ bool, args []string) {
	want, err := time.ParseDuration(args[1])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		ts.Check(err)
		lines := bytes.Split(text, []byte("\n"))
		var first, last decisionlog.Line
		if len(lines) > 2 && json.Unmarshal(lines[0], &first) == nil && json.Unmarshal(lines[len(lines)-2], &last) == nil && last.At.Sub(first.At) >= want {
			return
		}
	}
	ts.Fatalf("%s: gave up waiting for %s", args[0], want)
}

// awaitLines waits until a file has at least that many lines: awaitlines file n.
func awaitLines(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && bytes.Count(text, []byte("\n")) >= n {
			return
		}
	}
	ts.Fatalf("%s: gave up waiting for %d lines", args[0], n)
}

// wantSpent compares what is spent of the only limit of an account, and that nothing is stranded: wantspent account least [most].
func wantSpent(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("tollkeeper", "quota", "show", "--account", args[0], "-o", "json"))
	var list []admin.Quota
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &list))
	least, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	most := least
	if len(args) > 2 {
		most, err = strconv.ParseInt(args[2], 10, 64)
		ts.Check(err)
	}
	if len(list) != 1 || list[0].Spent < least || list[0].Spent > most || list[0].Stranded != 0 {
		ts.Fatalf("want %d to %d units spent, and none stranded: %+v", least, most, list)
	}
}
