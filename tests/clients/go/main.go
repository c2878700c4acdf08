// A program with the generated client: go run . BASE_URL WINDOW.json.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"

	"example/kanscope"
)

const weather = "nyc-weather"

var ctx = context.Background()

func main() {
	log.SetFlags(log.Lshortfile)
	url := os.Args[1]
	var window struct{ Instances [][][]float64 }
	content := must(os.ReadFile(os.Args[2]))
	check(json.Unmarshal(content, &window))

	configuration := kanscope.NewConfiguration()
	configuration.Servers = kanscope.ServerConfigurations{{URL: url}}
	client := kanscope.NewAPIClient(configuration)

	request := kanscope.NewPredictRequest()
	request.Instances = window.Instances
	predicted, _, err := client.PredictionsAPI.Predict(ctx, weather).PredictRequest(*request).Execute()
	check(err)

	zero := explain(client, weather, window.Instances, func(request *kanscope.ExplainRequest) {
		baseline := kanscope.NewBaseline()
		baseline.SetKind(kanscope.BASELINE_KIND_ZERO)
		request.SetBaseline(*baseline)
	})[0].Contributions

	half := map[string]float64{}
	for feature := range zero {
		half[feature] = 0.5
	}
	values := explain(client, weather, window.Instances, func(request *kanscope.ExplainRequest) {
		baseline := kanscope.NewBaseline()
		baseline.SetKind(kanscope.BASELINE_KIND_VALUES)
		baseline.SetValues(half)
		request.SetBaseline(*baseline)
	})[0].Contributions

	groups := explain(client, weather, window.Instances, func(request *kanscope.ExplainRequest) {
		request.SetGroups(map[string][]string{"hour": {"hour_sin", "hour_cos"}})
	})[0].GetContributionsByGroup()

	first, _, err := client.ModelsAPI.GetReferenceWindow(ctx, "pair", 0).Execute()
	check(err)
	outputs := [][]any{}
	for _, one := range explain(client, "pair", [][][]float64{first.Instance}, func(request *kanscope.ExplainRequest) {
		request.SetOutput([]string{"load+1", "load+2"})
	}) {
		outputs = append(outputs, []any{one.Output, one.Prediction})
	}

	topology, _, err := client.TopologyAPI.GetTopology(ctx, weather).Metric(kanscope.METRIC_BACKWARD).Fidelity(0.9).Execute()
	check(err)
	var edge *kanscope.EdgeResponse
	for _, one := range topology.Edges {
		if one.Kind == "edge" {
			edge, _, err = client.EdgesAPI.GetEdge(ctx, weather, one.GetLayer(), one.GetI(), one.GetJ()).
				Stage(kanscope.Stage(one.GetStage())).Points(11).Execute()
			check(err)
			break
		}
	}

	report, _, err := client.ReportAPI.GetReport(ctx, weather).Execute()
	check(err)
	var answer string
	for _, finding := range report.Findings {
		if finding.Id == kanscope.FINDING_ID_SPARSITY {
			answer = finding.Answer
		}
	}

	request.Instances = [][][]float64{}
	_, response, err := client.PredictionsAPI.Predict(ctx, weather).PredictRequest(*request).Execute()
	status, refusal := refused(response, err)
	request.Instances = window.Instances
	_, response, err = client.PredictionsAPI.Predict(ctx, "broken").PredictRequest(*request).Execute()
	unready, failure := refused(response, err)

	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"forecast": predicted.Predictions[0][0],
		"zero":     zero,
		"values":   values,
		"groups":   groups,
		"outputs":  outputs,
		"lines":    stream(url, window.Instances[0]),
		"kept":     topology.Graph.Edges.Kept,
		"nodes":    len(topology.Nodes),
		"edge":     []any{edge.Shape, edge.Y[0], edge.Source, edge.Target},
		"report":   answer,
		"error":    []any{status, refusal.Code, refusal.Errors[0].Path},
		"unready":  []any{unready, failure.Code},
	}))
}

// explain returns the explanations of the windows.
func explain(client *kanscope.APIClient, model string, windows [][][]float64, set func(*kanscope.ExplainRequest)) []kanscope.Explanation {
	request := kanscope.NewExplainRequest()
	request.Instances = windows
	set(request)
	explained, _, err := client.ExplanationsAPI.Explain(ctx, model).ExplainRequest(*request).Execute()
	check(err)
	return explained.Explanations
}

// stream explains the window three times, and returns the number of lines and the prediction of the last.
func stream(url string, window [][]float64) []any {
	request := kanscope.NewExplainRequest()
	request.Instances = [][][]float64{window, window, window}
	post := must(http.NewRequest("POST", url+"/v1/models/"+weather+":explain", bytes.NewReader(must(json.Marshal(request)))))
	post.Header.Set("Content-Type", "application/json")
	post.Header.Set("Accept", "application/x-ndjson")
	response := must(http.DefaultClient.Do(post))
	defer response.Body.Close()

	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<24) // of one line; with detail `flow` it is long
	var header kanscope.ExplainHeader
	var last kanscope.Explanation
	number := 0
	for ; lines.Scan(); number++ {
		if number == 0 {
			check(json.Unmarshal(lines.Bytes(), &header))
		} else {
			last = kanscope.Explanation{}
			check(json.Unmarshal(lines.Bytes(), &last))
		}
	}
	check(lines.Err())
	return []any{number, last.Prediction}
}

// refused returns the status and the error of a request that fails.
func refused(response *http.Response, err error) (int, kanscope.ErrorResponse) {
	var failure *kanscope.GenericOpenAPIError
	if !errors.As(err, &failure) {
		log.Fatalf("no error of the service: %v", err)
	}
	return response.StatusCode, failure.Model().(kanscope.ErrorResponse)
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Output(3, fmt.Sprint(err))
		os.Exit(1)
	}
}
