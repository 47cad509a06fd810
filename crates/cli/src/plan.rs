//! `privet plan`: what a model becomes and costs.

use privet::Plan;
use privet::explain::{Setting, explain};
use privet::model::{self, Accuracy, PLAN_FILE};
use privet::predict::{Machine, Prediction, predict};

use crate::args::{Engine, LoweringArgs, PlanArgs};
use crate::choice;
use crate::commands::{lower, print_line};
use crate::exit::{Code, Failure};
use crate::network::Network;
use crate::show::json::{PlanResult, Predicted};
use crate::show::observe::Terminal;
use crate::show::{self, print};

pub(crate) fn plan(args: &PlanArgs) -> anyhow::Result<()> {
    args.keys.check(&[args.engine])?;
    // Before a model is compiled, which may take minutes.
    match (args.engine, &args.network) {
        (Engine::Cleartext, Some(network)) => return Err(network.useless_in_the_clear()),
        (Engine::ThreeParty, Some(network)) => {
            let text = format!("--network {network}: times are predicted for --engine 2pc only");
            return Err(Failure::error(Code::Usage, text));
        }
        _ => {}
    }
    let (mut plan, calibration) = read(args)?;
    let choice = match args.engine {
        Engine::Auto => {
            let network = args.network.clone().unwrap_or_else(Network::lan);
            let (choice, prediction) = {
                let _spinner = Terminal::new().spinner("calibrating this machine");
                choice::choose(&plan, args.reveal_to.into(), &network, &args.keys)?
            };
            plan = choice.plan.clone();
            Some((network, choice, prediction))
        }
        _ => None,
    };
    let setting = match args.engine {
        Engine::TwoParty | Engine::Fss | Engine::Auto => Setting::TwoParty(args.reveal_to.into()),
        Engine::ThreeParty => Setting::ThreeParty,
        Engine::Cleartext => Setting::Cleartext,
    };
    let mut explanation = explain(&plan, setting);
    if args.engine == Engine::Auto {
        explanation.engine = Engine::Auto.name();
    }
    let prediction = match &choice {
        Some((network, _, prediction)) => Some((network.clone(), prediction.clone())),
        None => args.network.clone().zip(predicted(&plan, args)?),
    };
    if args.json {
        let prediction = prediction.as_ref();
        let prediction = prediction.map(|(network, times)| Predicted { network: network.to_string(), times });
        let (explanation, calibration) = (&explanation, calibration.as_ref());
        let choice = choice.as_ref().map(|(_, choice, _)| choice);
        return print_line(&PlanResult { explanation, calibration, choice, prediction });
    }
    print(&show::plan::describe(&explanation, args.all))?;
    if let Some((network, choice, _)) = &choice {
        print(&show::choice::describe(network, choice))?;
    }
    if let Some((network, prediction)) = &prediction {
        print(&show::plan::describe_prediction(network, prediction))?;
    }
    calibration.map_or(Ok(()), |accuracy| print(&show::accuracy_line(&accuracy)))
}

/// What `--network` asks for.
fn predicted(plan: &Plan, args: &PlanArgs) -> anyhow::Result<Option<Prediction>> {
    let Some(network) = &args.network else { return Ok(None) };
    let _spinner = Terminal::new().spinner("calibrating this machine");
    let machine = Machine::calibrate(plan)?;
    Ok(Some(predict(plan, args.reveal_to.into(), &machine, network.link)))
}

/// Compiles an ONNX file, or reads a plan that was compiled before.
fn read(args: &PlanArgs) -> anyhow::Result<(Plan, Option<Accuracy>)> {
    let path = &args.model;
    let file = if path.is_dir() { path.join(PLAN_FILE) } else { path.clone() };
    let is_plan = path.is_dir() || path.extension().is_some_and(|e| e == "privet");
    if !is_plan {
        let _spinner = Terminal::new().spinner("compiling");
        let model = lower(path, &args.lowering)?;
        let plan = if args.engine == Engine::Fss { model.plan.with_fss() } else { model.plan };
        return Ok((plan, model.accuracy));
    }
    if args.lowering != LoweringArgs::default() {
        let text = format!(
            "{} is compiled already: options about compiling go with the ONNX model, or with privet compile",
            path.display()
        );
        return Err(Failure::error(Code::Usage, text));
    }
    let plan = model::load_plan(&file)?;
    if args.engine == Engine::Fss && plan.fss.is_empty() {
        let text =
            format!("{} is compiled already, without keys: use privet compile --engine fss", path.display());
        return Err(Failure::error(Code::Usage, text));
    }
    Ok((plan, None))
}
