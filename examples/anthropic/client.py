"""What a customer runs: Anthropic's own package, with another base URL and another key.

export ANTHROPIC_BASE_URL=http://127.0.0.1:8080 ANTHROPIC_API_KEY=tk_dev_...
python client.py            # a call, a stream, a tool
python client.py --spend    # calls until the credits are used up
"""

from __future__ import annotations

import sys

import anthropic

WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def ask(client: anthropic.Anthropic, model: str, text: str = "Good morning, agent") -> None:
    """One call. What it cost is in the headers, which `with_raw_response` shows."""
    raw = client.messages.with_raw_response.create(
        model=model, max_tokens=200, messages=[{"role": "user", "content": text}]
    )
    print(f"{model}: {raw.parse().content[0].text}")
    charged, left = raw.headers["X-Credits-Charged"], raw.headers["X-Credits-Remaining"]
    print(f"  charged {charged} credits, {left} are left")


def listen(client: anthropic.Anthropic, text: str) -> None:
    """A stream, word by word, and the usage that its events add up to."""
    with client.messages.stream(
        model="parrot-1", max_tokens=200, messages=[{"role": "user", "content": text}]
    ) as stream:
        print("streamed:", "".join(stream.text_stream))
        usage = stream.get_final_message().usage
        print(f"  {usage.input_tokens} tokens in, {usage.output_tokens} out")


def use_tool(client: anthropic.Anthropic) -> None:
    """The agent asks for a tool, and answers with what it gave."""
    messages = [{"role": "user", "content": "How is the weather in Lisbon?"}]
    asked = client.messages.create(
        model="parrot-1", max_tokens=200, messages=messages, tools=[WEATHER]
    )
    (use,) = asked.content
    print(f"the agent calls {use.name}({use.input['city']})")
    result = {
        "type": "tool_result",
        "tool_use_id": use.id,
        "content": f"sunny in {use.input['city']}",
    }
    turns = [
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [result]},
    ]
    answer = client.messages.create(
        model="parrot-1", max_tokens=200, messages=[*messages, *turns], tools=[WEATHER]
    )
    print(answer.content[0].text)


def spend(client: anthropic.Anthropic) -> None:
    """Calls until one is refused: `max_tokens` says what each may cost at most."""
    try:
        while True:
            client.messages.create(
                model="parrot-1",
                max_tokens=4000,
                messages=[{"role": "user", "content": "Count to 4000"}],
            )
    except anthropic.PaymentRequiredError as error:
        print(f"{error.status_code} {error.error_code}: {error.api_message}")
        print(f"needed {error.details.needed}, available {error.details.available}")


def main() -> None:
    """Do it all, or spend it all."""
    with anthropic.Anthropic() as client:
        if "--spend" in sys.argv:
            spend(client)
            return
        ask(client, "parrot-1")
        ask(client, "parrot-1-mini")
        listen(client, "Count to 12")
        use_tool(client)


if __name__ == "__main__":
    main()
