// Command gitops prints what GitOps tools conclude from objects.
//
// It reads a JSON array of objects on standard input and writes an array of verdicts, one per object: what kstatus says
// (Flux without health expressions, and everything else that uses it), what Flux says with the health expressions of
// -flux, and what Argo CD says with the health scripts of -argocd. An object that a tool has no rule for is an error:
// the rules are there to be tested.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/google/cel-go/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// healthCheck is an entry of spec.healthCheckExprs of a Flux Kustomization.
type healthCheck struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	InProgress string `json:"inProgress"`
	Failed     string `json:"failed"`
	Current    string `json:"current"`
}

type verdict struct {
	Kstatus string `json:"kstatus"`
	Flux    string `json:"flux"`
	ArgoCD  string `json:"argocd"`
	// Argo CD's message: what a person reads in its interface.
	Message string `json:"message"`
}

func main() {
	argocd := flag.String("argocd", "", "a ConfigMap argocd-cm with resource.customizations.health.GROUP_KIND")
	flux := flag.String("flux", "", "Kustomizations with spec.healthCheckExprs")
	flag.Parse()
	if err := run(*argocd, *flux); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(argocd, flux string) error {
	var config struct {
		Data map[string]string `json:"data"`
	}
	text, err := os.ReadFile(argocd)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return err
	}
	text, err = os.ReadFile(flux)
	if err != nil {
		return err
	}
	var checks []healthCheck
	for _, document := range strings.Split(string(text), "\n---\n") {
		var kustomization struct {
			Spec struct {
				HealthCheckExprs []healthCheck `json:"healthCheckExprs"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(document), &kustomization); err != nil {
			return err
		}
		checks = append(checks, kustomization.Spec.HealthCheckExprs...)
	}

	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(input, &raw); err != nil {
		return err
	}
	verdicts := make([]verdict, 0, len(raw))
	for _, text := range raw {
		// Numbers become int64, as in the tools themselves.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		judged, err := judge(object, config.Data, checks)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		verdicts = append(verdicts, judged)
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}

func judge(object *unstructured.Unstructured, scripts map[string]string, checks []healthCheck) (verdict, error) {
	result, err := status.Compute(object)
	if err != nil {
		return verdict{}, fmt.Errorf("kstatus: %w", err)
	}
	flux, err := fluxStatus(object, checks)
	if err != nil {
		return verdict{}, fmt.Errorf("flux: %w", err)
	}
	health, message, err := argoHealth(object, scripts)
	if err != nil {
		return verdict{}, fmt.Errorf("argocd: %w", err)
	}
	return verdict{Kstatus: result.Status.String(), Flux: flux, ArgoCD: health, Message: message}, nil
}

// fluxStatus follows Flux's RFC 0009: an object that goes away is Terminating, one whose generation was not observed
// InProgress; then the first expression that holds decides. One that cannot be evaluated (a field is missing) makes the
// status Unknown, and Flux waits on.
func fluxStatus(object *unstructured.Unstructured, checks []healthCheck) (string, error) {
	if object.GetDeletionTimestamp() != nil {
		return status.TerminatingStatus.String(), nil
	}
	observed, found, err := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	if err != nil {
		return "", err
	}
	if found && observed != object.GetGeneration() {
		return status.InProgressStatus.String(), nil
	}
	environment, err := cel.NewEnv()
	if err != nil {
		return "", err
	}
	for _, check := range checks {
		if check.APIVersion != object.GetAPIVersion() || check.Kind != object.GetKind() {
			continue
		}
		for _, rule := range []struct {
			expression string
			status     status.Status
		}{{check.InProgress, status.InProgressStatus}, {check.Failed, status.FailedStatus}, {check.Current, status.CurrentStatus}} {
			// Parsed and not checked, as Flux does: a resource may have any fields.
			parsed, issues := environment.Parse(rule.expression)
			if issues.Err() != nil {
				return "", issues.Err()
			}
			program, err := environment.Program(parsed)
			if err != nil {
				return "", err
			}
			holds, _, err := program.Eval(object.Object)
			if err != nil {
				return status.UnknownStatus.String(), nil
			}
			if holds.Value() == true {
				return rule.status.String(), nil
			}
		}
		return status.InProgressStatus.String(), nil
	}
	return "", fmt.Errorf("no health expressions for %s %s", object.GetAPIVersion(), object.GetKind())
}

// argoHealth does what Argo CD does: an object that goes away is Progressing before any script is asked; a script gets
// the object as `obj`, only the base and table libraries, a second, and gives a table.
func argoHealth(object *unstructured.Unstructured, scripts map[string]string) (string, string, error) {
	if object.GetDeletionTimestamp() != nil {
		return "Progressing", "Pending deletion", nil
	}
	kind := object.GroupVersionKind()
	key := fmt.Sprintf("resource.customizations.health.%s_%s", kind.Group, kind.Kind)
	script, found := scripts[key]
	if !found {
		return "", "", fmt.Errorf("no %s", key)
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	deadline, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(deadline)
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the script gave %s, not a table", state.Get(-1).Type())
	}
	health := lua.LVAsString(answer.RawGetString("status"))
	switch health {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return health, lua.LVAsString(answer.RawGetString("message")), nil
	default:
		return "", "", fmt.Errorf("the script gave the status %q", health)
	}
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case string:
		return lua.LString(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case []any:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
