package orders;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.camel.Exchange;
import org.apache.camel.builder.RouteBuilder;
import org.apache.camel.component.jackson.JacksonDataFormat;
import org.apache.camel.main.Main;
import org.apache.camel.processor.aggregate.GroupedBodyAggregationStrategy;

/** Pages of orders from FEED, mapped and sent to TARGET in batches of 200. */
public final class Orders extends RouteBuilder {
    private static final int BATCH = 200;

    public static void main(String[] arguments) throws Exception {
        Main main = new Main();
        main.configure().addRoutesBuilder(new Orders());
        main.run();
    }

    @Override
    public void configure() {
        String feed = System.getenv("FEED");
        String target = System.getenv("TARGET");
        int pages = Integer.parseInt(System.getenv("PAGES"));
        JacksonDataFormat page = new JacksonDataFormat(Map.class);
        page.setEnableFeatures("USE_BIG_DECIMAL_FOR_FLOATS");

        from("timer:start?repeatCount=1&delay=0")
            .loop(pages)
            .setBody(exchangeProperty(Exchange.LOOP_INDEX))
            .to("seda:pages?blockWhenFull=true&size=8&waitForTaskToComplete=Never");

        from("seda:pages?size=8&concurrentConsumers=2")
            .setHeader(Exchange.HTTP_QUERY, simple("page=${body}"))
            .setBody(constant((Object) null))
            .setHeader(Exchange.HTTP_METHOD, constant("GET"))
            .to(feed + "/orders")
            .removeHeaders("*")
            .unmarshal(page)
            .process(exchange -> exchange.getMessage().setBody(exchange.getMessage().getBody(Map.class).get("data")))
            .split(body())
            .process(exchange -> exchange.getMessage().setBody(order(exchange.getMessage().getBody(Map.class))))
            .aggregate(constant(true), new GroupedBodyAggregationStrategy()).completionSize(BATCH).completionTimeout(1000)
            .process(exchange -> exchange.getMessage().setBody(Map.of("records", exchange.getMessage().getBody(List.class))))
            .marshal(new JacksonDataFormat())
            .removeHeaders("*")
            .setHeader(Exchange.HTTP_METHOD, constant("POST"))
            .setHeader(Exchange.CONTENT_TYPE, constant("application/json"))
            .to(target + "/orders/batch");
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> order(Map<String, Object> order) {
        Map<String, Object> customer = (Map<String, Object>) order.get("customer");
        Map<String, Object> address = (Map<String, Object>) customer.get("address");
        List<Map<String, Object>> lines = new ArrayList<>();
        for (Map<String, Object> item : (List<Map<String, Object>>) order.get("items")) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("lineId", item.get("lineId"));
            line.put("sku", item.get("sku"));
            line.put("qty", item.get("quantity"));
            line.put("price", item.get("unitPrice"));
            lines.add(line);
        }
        Map<String, Object> canonical = new LinkedHashMap<>();
        canonical.put("externalRef", order.get("id"));
        canonical.put("orderNo", order.get("number"));
        canonical.put("state", switch ((String) order.get("status")) {
            case "A" -> "draft";
            case "B" -> "confirmed";
            default -> "shipped";
        });
        canonical.put("currency", order.get("currency"));
        canonical.put("amount", order.get("total"));
        canonical.put("customerName", customer.get("name"));
        canonical.put("customerEmail", customer.get("email"));
        canonical.put("country", ((String) address.get("country")).toUpperCase(Locale.ROOT));
        canonical.put("comment", order.get("notes"));
        canonical.put("lines", lines);
        return canonical;
    }
}
