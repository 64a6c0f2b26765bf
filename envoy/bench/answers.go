package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// part is an answer that has some of what Tollkeeper's answer has.
type part struct {
	label  string
	answer *authv3.CheckResponse
}

// partsOf takes an allow apart: nothing of it, each part alone, and everything.
func partsOf(whole *authv3.CheckResponse) []part {
	from := whole.GetOkResponse()
	only := func(label string, take func(ok *authv3.OkHttpResponse)) part {
		p := part{label, allow()}
		take(p.answer.GetOkResponse())
		return p
	}
	noted := func(label string, keep func(name string) bool) part {
		notes := &structpb.Struct{Fields: make(map[string]*structpb.Value)}
		for name, v := range whole.GetDynamicMetadata().GetFields()["tollkeeper"].GetStructValue().GetFields() {
			if keep(name) {
				notes.Fields[name] = v
			}
		}
		p := part{label, allow()}
		p.answer.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{"tollkeeper": structpb.NewStructValue(notes)}}
		return p
	}
	id := part{"only the decision id", allow()}
	id.answer.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{"decision_id": whole.GetDynamicMetadata().GetFields()["decision_id"]}}
	return []part{
		{emptyAnswer, allow()},
		only("only the account's header", func(ok *authv3.OkHttpResponse) { ok.Headers = from.GetHeaders()[1:2] }),
		only("only the identity headers", func(ok *authv3.OkHttpResponse) { ok.Headers = from.GetHeaders() }),
		only("only the removal of the key", func(ok *authv3.OkHttpResponse) { ok.HeadersToRemove = from.GetHeadersToRemove() }),
		only("only the RateLimit fields", func(ok *authv3.OkHttpResponse) { ok.ResponseHeadersToAdd = from.GetResponseHeadersToAdd() }),
		noted("only the route, as metadata", func(name string) bool { return name == "route" }),
		noted("only all notes, as metadata", func(string) bool { return true }),
		id,
		{"everything", whole},
	}
}

// numbered gives the answer whose number is the last segment of the path, so that one process can give each of them.
type numbered struct{ answers []*authv3.CheckResponse }

func numberedPath(i int) string { return fmt.Sprintf("/v1/orders/%02d", i) }

func (n numbered) Check(_ context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	asked := in.GetAttributes().GetRequest().GetHttp().GetPath()
	i, err := strconv.Atoi(path.Base(asked))
	if err != nil || i < 0 || i >= len(n.answers) {
		return nil, status.Errorf(codes.InvalidArgument, "no answer for %q", asked)
	}
	return n.answers[i], nil
}

// writeAnswers writes a file for readAnswers.
func writeAnswers(file string, parts []part) error {
	encoded := make([][]byte, len(parts))
	for i, p := range parts {
		var err error
		if encoded[i], err = proto.Marshal(p.answer); err != nil {
			return err
		}
	}
	return writeFile(file, func(w io.Writer) error { return json.NewEncoder(w).Encode(encoded) })
}

func readAnswers(file string) (n numbered, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return n, err
	}
	var encoded [][]byte
	if err := json.Unmarshal(raw, &encoded); err != nil {
		return n, err
	}
	n.answers = make([]*authv3.CheckResponse, len(encoded))
	for i, b := range encoded {
		n.answers[i] = new(authv3.CheckResponse)
		if err := proto.Unmarshal(b, n.answers[i]); err != nil {
			return n, err
		}
	}
	return n, nil
}

// askOnce is the answer of an authorizer to a caller of the load, which must be an allow.
func askOnce(ctx context.Context, port int, l *load) (*authv3.CheckResponse, error) {
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := authv3.NewAuthorizationClient(conn).Check(ctx, checkRequest("GET", numberedPath(0), apiKey.header, string(l.nth(0))))
	if err == nil && resp.GetOkResponse() == nil {
		err = fmt.Errorf("want an allow, got %v", resp)
	}
	return resp, err
}
