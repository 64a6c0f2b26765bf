package harness

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestUpstream_RecordsRequests(t *testing.T) {
	u, err := StartUpstream()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(proto == "HTTP/1.1")
		protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0")
		client := &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://" + loopback(u.Port()) + "/a%2Fb?c=d")
		if err != nil {
			t.Fatal(err)
		}
		var told Seen
		err = json.NewDecoder(resp.Body).Decode(&told)
		resp.Body.Close()
		last, ok := u.Last()
		if err != nil || !ok || last.Proto != proto || last.URI != "/a%2Fb?c=d" || last.Method != http.MethodGet || told.URI != last.URI {
			t.Errorf("%s: saw %+v, told %+v, %v", proto, last, told, err)
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+loopback(u.Port()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := Echo(t.Context(), conn, "hello"); got != "hello" || err != nil {
		t.Errorf("gRPC: %q, %v", got, err)
	}
	if requests := u.Requests(); u.Count() != 3 || requests[2].URI != EchoMethod {
		t.Errorf("%d requests, the last one for %q", u.Count(), requests[2].URI)
	}
	u.Reset()
	if _, ok := u.Last(); ok || u.Count() != 0 {
		t.Error("Reset left something")
	}
}
